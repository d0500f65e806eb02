"""What the processes of one server have counted, in files of one folder: each writes its own and reads all the others'."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

_ENDING = ".counts"
_SUPERVISOR = "supervisor.json"


class Counts(msgspec.Struct, array_like=True):
    """Counts since a process started: keys as in `Metrics`, buckets in its order."""

    requests: dict[tuple[str, int, str, str, str], int]
    rejected: dict[tuple[str, str], int]
    buckets: dict[str, list[int]]
    seconds: dict[str, float]


class Crew(msgspec.Struct):
    """How many workers are ready, and how often a process was started again, by what its predecessor died of."""

    ready: int
    restarts: dict[str, int]


class SharedCounts:
    """The folder. Files of processes that are gone stay, so that sums never fall; ``own`` is the name of this process's."""

    def __init__(self, folder: Path, own: str) -> None:
        self._folder = folder
        self._own = folder / f"{own}{_ENDING}"

    def write(self, counts: Counts) -> None:
        """Replace this process's counts; readers see the old or the new ones whole."""
        _replace(self._own, msgspec.msgpack.encode(counts))

    def others(self) -> Iterator[Counts]:
        """The counts of every other process, at most about a second old."""
        for file in sorted(self._folder.glob(f"*{_ENDING}")):
            if file != self._own:
                yield msgspec.msgpack.decode(file.read_bytes(), type=Counts)

    def crew(self) -> Crew:
        """What the supervisor wrote last."""
        file = self._folder / _SUPERVISOR
        return msgspec.json.decode(file.read_bytes(), type=Crew) if file.exists() else Crew(0, {})


def write_crew(folder: Path, ready: int, restarts: Mapping[str, int]) -> None:
    """The supervisor's part."""
    _replace(folder / _SUPERVISOR, msgspec.json.encode(Crew(ready, dict(restarts))))


def _replace(file: Path, data: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(data)
    os.replace(new, file)
