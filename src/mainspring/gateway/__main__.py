"""``python -m mainspring.gateway``: serve workspaces, a system each; prints ``{"port": ...}`` as soon as it listens.

With ``--workers`` it is the supervisor of processes that it starts as itself, with the arguments that its help does not name.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import secrets
import socket
import sys
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from mainspring.errors import MainspringError
from mainspring.storage.workspace import Workspace

if TYPE_CHECKING:
    from mainspring.gateway.processes.child import Aside
    from mainspring.gateway.settings import Settings
    from mainspring.models.large_tables import OpenTables


def main() -> None:
    """Parse arguments and serve until told to stop; an error of ours is one line."""
    arguments = _arguments()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    faulthandler.enable()
    try:
        if arguments.follow:
            _follow(arguments)
        elif arguments.listener is None and (arguments.workers > 1 or _settings(arguments).shards.count):
            _supervise(arguments)
        else:
            _serve(arguments)
    except MainspringError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mainspring.gateway")
    parser.add_argument("--workspace", type=Path, action="append", required=True, help="of a system; once for each")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that answer")
    parser.add_argument("--settings", type=Path, help="TOML file of the gateway's settings")
    parser.add_argument("--grpc-port", type=int, help="port of gRPC, 0 for a free one; that of the settings without it")
    parser.add_argument("--name", default="", help="of this server, where others answer from the same workspace")
    parser.add_argument("--no-stream", action="store_true", help="someone else folds events into the online store")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input closes")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--listener", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shard", action="append", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--shared", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _serve(arguments: argparse.Namespace) -> None:
    from mainspring.gateway.backend import opened
    from mainspring.gateway.processes.shared_counts import SharedCounts
    from mainspring.gateway.server import serve

    listener = None if arguments.listener is None else socket.socket(fileno=arguments.listener)
    shared = None if arguments.shared is None else SharedCounts(arguments.shared, f"{arguments.worker}-{secrets.token_hex(4)}")
    worker = "-".join(filter(None, (arguments.name, str(arguments.worker))))
    with ExitStack() as stack:
        spaces = [Workspace(path) for path in arguments.workspace]
        tables, stream = _tables(arguments), not arguments.no_stream
        backends = [stack.enter_context(opened(space, stream=stream, worker=worker, tables=tables)) for space in spaces]
        if listener is not None:
            for backend in backends:
                backend.ready()
        serve(
            *backends,
            host=arguments.host,
            port=arguments.port,
            settings=_settings(arguments),
            announce=_announce,
            exit_with_parent=arguments.exit_with_parent,
            listener=listener,
            shared=shared,
        )


def _settings(arguments: argparse.Namespace) -> Settings:
    from mainspring.gateway.settings import Grpc, Settings, read_settings

    settings = Settings() if arguments.settings is None else read_settings(arguments.settings)
    return settings if arguments.grpc_port is None else structs.replace(settings, grpc=Grpc(arguments.grpc_port))


def _tables(arguments: argparse.Namespace) -> OpenTables | None:
    """What opens the large tables of nets in shards, where there are some."""
    shards = _settings(arguments).shards
    addresses = arguments.shard or shards.addresses
    if not addresses:
        return None
    from mainspring.serving.shards.client import sharded

    return sharded(addresses, shards.deadline)


def _follow(arguments: argparse.Namespace) -> None:
    from mainspring.gateway.processes.following import follow

    follow(Workspace(arguments.workspace[0]), lambda: print("ready", flush=True))


def _supervise(arguments: argparse.Namespace) -> None:
    import tempfile

    from mainspring.gateway.processes.listening import listen, reserved
    from mainspring.gateway.processes.shared_counts import write_crew
    from mainspring.gateway.processes.supervisor import Supervisor

    own = [sys.executable, "-m", "mainspring.gateway"]
    spaces = [["--workspace", str(path)] for path in arguments.workspace]
    listener = listen(arguments.host, arguments.port)
    port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mainspring-") as name, reserved(arguments.host, _settings(arguments).grpc.port) as rpc_port:
        shared = Path(name)
        settings = [] if arguments.settings is None else ["--settings", str(arguments.settings)]
        shards = [f"unix:{shared / f'shard-{number}'}" for number in range(_settings(arguments).shards.count)]
        rpc = [] if rpc_port is None else ["--host", arguments.host, "--grpc-port", str(rpc_port)]
        worker = [
            *own,
            *chain.from_iterable(spaces),
            *settings,
            *rpc,
            *chain.from_iterable(("--shard", address) for address in shards),
            "--no-stream",
            "--exit-with-parent",
            "--listener",
            str(listener.fileno()),
            "--shared",
            name,
            "--name",
            arguments.name,
        ]
        Supervisor(
            listener,
            lambda number: [*worker, "--worker", str(number)],
            arguments.workers,
            asides=[
                *([] if arguments.no_stream else _streams([[*own, *space, "--follow"] for space in spaces])),
                *_shards(arguments, shards),
            ],
            changed=lambda ready, restarts: write_crew(shared, ready, restarts),
        ).run(lambda: _announce(port, rpc_port), end_of=sys.stdin.fileno() if arguments.exit_with_parent else None)


def _streams(commands: list[list[str]]) -> list[Aside]:
    titles = ["The stream"] if len(commands) == 1 else [f"Stream {number}" for number in range(len(commands))]
    return [_aside(title, command) for title, command in zip(titles, commands, strict=True)]


def _shards(arguments: argparse.Namespace, addresses: list[str]) -> list[Aside]:
    """The shards of this server; they stay when workers are replaced, since what they hold is named by what is in it."""
    from mainspring.model_registry.addresses import artifacts_of

    artifacts = [part for path in arguments.workspace for part in ("--artifacts", artifacts_of(Workspace(path).registry_url))]
    own = [sys.executable, "-m", "mainspring.gateway.processes.shard", "--exit-with-parent", *artifacts, "--of", str(len(addresses))]
    return [
        _aside(f"Shard {number}", [*own, "--shard", str(number), "--listen", address], stays=True)
        for number, address in enumerate(addresses)
    ]


def _aside(title: str, command: list[str], *, stays: bool = False) -> Aside:
    from mainspring.gateway.processes.child import Aside

    return Aside(title, lambda _: command, stays)


def _announce(port: int, rpc_port: int | None) -> None:
    print(json.dumps({"port": port} if rpc_port is None else {"port": port, "grpc_port": rpc_port}), flush=True)


if __name__ == "__main__":
    main()
