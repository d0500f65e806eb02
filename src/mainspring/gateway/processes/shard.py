"""``python -m mainspring.gateway.processes.shard``: hold a share of the large tables of nets; prints the address when it listens."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from mainspring.errors import DeclarationError, MainspringError, ServingError
from mainspring.gateway.processes.parent import when_parent_is_gone
from mainspring.serving.shards.holder import Holder
from mainspring.serving.shards.wire import listen
from mainspring.storage.stores import open_blobs


def main() -> None:
    """Hold until SIGTERM or SIGINT; an error of ours is one line."""
    parser = argparse.ArgumentParser(prog="python -m mainspring.gateway.processes.shard")
    parser.add_argument("--artifacts", action="append", required=True, help="of a registry: a folder or s3://BUCKET/PREFIX; once for each")
    parser.add_argument("--shard", type=int, required=True, help="its number, from 0")
    parser.add_argument("--of", type=int, required=True, help="how many shards there are")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT or unix:PATH, open to whoever reaches it")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        _hold(arguments)
    except MainspringError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _hold(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.shard < arguments.of:
        raise DeclarationError(f"Shard {arguments.shard} of {arguments.of}: there is none. Numbers begin at 0.")
    stores = [open_blobs(address) for address in arguments.artifacts]
    try:
        listener = listen(arguments.listen)
    except OSError as error:
        raise ServingError(f"Shard, {arguments.listen}: the address cannot be bound ({error}). Choose another.") from error
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    if arguments.exit_with_parent:
        when_parent_is_gone(stop.set)
    place = listener.getsockname()
    print(f"unix:{place}" if isinstance(place, str) else f"{place[0]}:{place[1]}", flush=True)
    Holder(arguments.shard, arguments.of, stores).run(listener, stop)


if __name__ == "__main__":
    main()
