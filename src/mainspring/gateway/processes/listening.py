"""The socket that a server listens on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from mainspring.errors import ServingError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that already queues connections, so that the announced port is right and answers.

    Raises:
        ServingError: the address cannot be bound.
    """
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise _taken(host, port, error) from error


@contextlib.contextmanager
def reserved(host: str, port: int | None) -> Iterator[int | None]:
    """A port, 0 for a free one, held while the context lasts: servers of this user that set SO_REUSEPORT may listen on it, no others.

    None for none.

    Raises:
        ServingError: the address cannot be bound, or this system knows no SO_REUSEPORT.
    """
    if port is None:
        yield None
        return
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ServingError(f"Server, {host}:{port}: this system cannot share a port (SO_REUSEPORT). Serve over HTTP alone.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((host, port))
        except (OSError, OverflowError) as error:
            raise _taken(host, port, error) from error
        yield held.getsockname()[1]


def _taken(host: str, port: int, error: Exception) -> ServingError:
    return ServingError(f"Server, {host}:{port}: the address cannot be bound ({error}). Choose another port, or 0 for a free one.")
