"""Files that survive: whole writes, atomic replacement, locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def make_directory(path: Path) -> None:
    """Make ``path`` and what is missing above it, so that the entries survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable: files created, renamed or removed in it."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def write_all(descriptor: int, buffers: Sequence[Any], position: int) -> None:
    """Write every byte of the buffers back to back at ``position``; an `OSError` may leave a part of them written."""
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    while views:
        written = os.pwritev(descriptor, views, position)
        position += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


def is_blank(descriptor: int, position: int, size: int) -> bool:
    """Whether the file holds only zero bytes from ``position`` on: what a power cut leaves of a write that was never synced."""
    return not os.pread(descriptor, size - position, position).strip(b"\0")


@contextmanager
def opened(path: str | Path, flags: int) -> Iterator[int]:
    """A file descriptor that is closed on exit."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold the lock file ``path`` alone, among threads and processes; a holder that dies lets go."""
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes ``path`` on a clean exit, whole and durable, or not at all.

    Killed before that, it leaves a file with ``.tmp`` after its name, which the next one replaces.
    """
    draft = path.with_name(path.name + ".tmp")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)
    sync_directory(path.parent)
