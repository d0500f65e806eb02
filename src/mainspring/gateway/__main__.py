"""``python -m mainspring.gateway``: serve one workspace; prints ``{"port": ...}`` as soon as it listens."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from mainspring.gateway.backend import opened
from mainspring.gateway.server import serve
from mainspring.gateway.settings import Settings, read_settings
from mainspring.storage.workspace import Workspace


def main() -> None:
    """Parse arguments and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m mainspring.gateway")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--settings", type=Path, help="TOML file of the gateway's settings")
    parser.add_argument("--no-stream", action="store_true", help="someone else folds events into the online store")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings() if arguments.settings is None else read_settings(arguments.settings)
    with opened(Workspace(arguments.workspace), stream=not arguments.no_stream) as backend:
        serve(backend, arguments.host, arguments.port, settings=settings, announce=_announce, exit_with_parent=arguments.exit_with_parent)


def _announce(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


if __name__ == "__main__":
    main()
