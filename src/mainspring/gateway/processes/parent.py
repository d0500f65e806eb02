"""The process that started this one, as its standard input knows it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress


def when_parent_is_gone(end: Callable[[], None]) -> None:
    """Call ``end``, in a thread of its own, when standard input ends: then whoever held the other side of it is gone."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        end()

    threading.Thread(target=wait, name="parent", daemon=True).start()
