"""Versions that somebody asked for by number, kept in memory under a limit of bytes beside those that are live."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from mainspring.gateway.service import AskedVersion, Service
from mainspring.serving.batching import Batcher, Held

Key = tuple[str, int]


class _Kept(NamedTuple):
    version: AskedVersion
    batcher: Batcher


class Shelf:
    """Loads a version when it is first asked for, in a thread, one at a time, and once however many ask; to be used in one event loop.

    Above ``limit`` bytes the versions of all systems that were used least recently go. What still answers on one that goes is finished.
    """

    def __init__(self, limit: int, held: Held) -> None:
        """``held`` as in `Batcher`."""
        self._limit, self._held = limit, held
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Batcher]] = {}
        self._turn = asyncio.Semaphore()

    async def get(self, service: Service, number: int) -> Batcher:
        """What answers with the version of that number.

        Raises:
            RequestError: there is no such version (404), it cannot be loaded (409), or is larger than the limit (422).
        """
        key = service.system.name, number
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key].batcher
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._load(key, service))
        return await asyncio.shield(self._loading[key])

    def drop(self, system: str, number: int | None = None) -> int:
        """Let go of a version of a system, or of all of them; how many there were."""
        gone = [key for key in self._kept if key[0] == system and number in (None, key[1])]
        for key in gone:
            del self._kept[key]
        return len(gone)

    def numbers(self, system: str) -> list[int]:
        """The versions of a system that are loaded, the one used last at the end."""
        return [number for name, number in self._kept if name == system]

    def size(self, system: str) -> int:
        """The bytes that they are taken to need."""
        return sum(kept.version.size for key, kept in self._kept.items() if key[0] == system)

    async def _load(self, key: Key, service: Service) -> Batcher:
        try:
            async with self._turn:
                version = await asyncio.to_thread(service.load, key[1], self._limit)
            batcher = Batcher(version.answer_many, version.answer_late, self._held)
            self._kept[key] = _Kept(version, batcher)
            while sum(kept.version.size for kept in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
            return batcher
        finally:
            del self._loading[key]
