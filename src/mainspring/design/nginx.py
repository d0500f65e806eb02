"""nginx in front of replicas of a System: its whole configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.design.sizing import Sizing
from mainspring.spec import System

_EVENT_SECONDS = 15
_TEMPLATE = """\
# {name}: {question}
# Written by `mainspring deploy {name} --target nginx`. Start: nginx -p . -c nginx.conf
worker_processes auto;
pid nginx.pid;
error_log stderr warn;

events {{
    worker_connections 4096;
}}

http {{
    access_log off;
    server_tokens off;
    client_max_body_size 1m;

    # One id for all attempts at a request: the client's, or one made here.
    map $http_x_request_id $sent_request_id {{
        default $http_x_request_id;
        "" $request_id;
    }}

    upstream {name} {{
        least_conn;
{servers}
        # Below the 30 s after which a replica closes an idle connection, so that no request meets the closing.
        keepalive 64;
        keepalive_timeout 4s;
    }}

    # The answer to a request depends on its content alone, and an event counts once by its id: both may be asked again of another replica.
    proxy_next_upstream error timeout http_503 non_idempotent;
    proxy_next_upstream_tries {tries};
    proxy_connect_timeout 1s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Request-Id $sent_request_id;
    proxy_set_header traceparent $http_traceparent;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;

    server {{
        listen {listen};

        location = /v1/{name} {{
            proxy_read_timeout {limit}s;
            proxy_next_upstream_timeout {both}s;
            proxy_pass http://{name};
        }}

        location /v1/{name}/events/ {{
            proxy_read_timeout {events}s;
            proxy_pass http://{name};
        }}

        # Each replica's own: asked of the replica, not through here.
        location = /metrics {{
            return 404;
        }}

        location / {{
            proxy_read_timeout {limit}s;
            proxy_pass http://{name};
        }}
    }}
}}
"""


def configuration(system: System, replicas: Sequence[str], sizing: Sizing, listen: str = "8080") -> str:
    """The text of nginx.conf: ``replicas`` are addresses like ``10.0.0.5:8000``, ``listen`` a port or an address with one."""
    return _TEMPLATE.format(
        name=system.name,
        question=" ".join(system.question.split()),
        servers="\n".join(f"        server {one} max_fails=1 fail_timeout=2s;" for one in replicas),
        tries=min(2, len(replicas)),
        listen=listen,
        limit=sizing.limit_seconds,
        both=2 * sizing.limit_seconds,
        events=_EVENT_SECONDS,
    )
