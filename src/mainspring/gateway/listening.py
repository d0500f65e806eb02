"""The socket that a server listens on."""

from __future__ import annotations

import socket

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
        raise ServingError(
            f"Server, {host}:{port}: the address cannot be bound ({error}). Choose another port, or 0 for a free one."
        ) from error
