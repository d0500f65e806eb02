"""A System on Ray Serve: the configuration that ``serve run`` and ``serve deploy`` take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mainspring.design.sizing import Sizing
from mainspring.gateway.adapters.ray_serve import DEPLOYMENT
from mainspring.gateway.settings import Settings, read_settings
from mainspring.spec import System

PORT = 8000
_APPLICATION = "mainspring.gateway.adapters.ray_serve:application"
_GRACE_SECONDS = 10


def configuration(system: System, workspace: Path, sizing: Sizing, settings: Path | None = None) -> dict[str, Any]:
    """Replicas of one process and one core each; ``workspace`` and ``settings`` are paths that every node has.

    Ray hands a replica as many requests as its door may let in, so that the door judges overload, not the proxy's queue.

    Raises:
        DeclarationError: the settings cannot be read.
    """
    in_flight = (Settings() if settings is None else read_settings(settings)).overload.in_flight
    arguments = {"workspace": str(workspace.absolute())} | ({} if settings is None else {"settings": str(settings.absolute())})
    deployment = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": in_flight,
        "autoscaling_config": {"min_replicas": sizing.replicas, "max_replicas": sizing.most_replicas},
        "ray_actor_options": {"num_cpus": 1},
        "graceful_shutdown_timeout_s": _GRACE_SECONDS,
    }
    application = {
        "name": system.name,
        "route_prefix": "/",
        "import_path": _APPLICATION,
        "args": arguments,
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}},
        "deployments": [deployment],
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": PORT, "request_timeout_s": sizing.limit_seconds},
        "applications": [application],
    }
