"""Replaying a recording in accelerated time: events into the log, requests over HTTP.

Time moves in chunks of an hour. A chunk's events are in the online store before its requests are asked, so the store may
know more than it should at a request's instant; it answers as of that instant all the same, because every read counts only
what had happened and was known by then. The answers are those of strict interleaving; the report's skew check proves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.clock import HOUR, format_instant
from mainspring.feature_store.online import OnlineStore
from mainspring.ingestion.ingest import Ingestor
from mainspring.loop.client import Answered, Client
from mainspring.schema import EVENT_ID, Type
from mainspring.spec import Source
from mainspring.storage.log import Log

CHUNK = HOUR
EXPLAIN_EVERY = 50


class Feed:
    """Rows of several sources in order of when they were known."""

    def __init__(self, sources: Sequence[Source], tables: Mapping[str, pa.Table]) -> None:
        self._tables = {source.name: tables[source.name] for source in sources}
        self._known = {source.name: _known_times(source, tables[source.name]) for source in sources}

    def rows(self, start: int | None, end: int) -> Iterator[tuple[str, pa.Table]]:
        """Per source that has any, the rows known in ``[start, end)``; from the beginning where ``start`` is None."""
        for name, times in self._known.items():
            first = 0 if start is None else int(times.searchsorted(start, "left"))
            last = int(times.searchsorted(end, "left"))
            if last > first:
                yield name, self._tables[name].slice(first, last - first)


def logged_ids(log: Log) -> dict[str, pa.Array]:
    """Per source, the ids of the events in the log."""
    ids: dict[str, list[pa.Array]] = {}
    for frame in log.read():
        ids.setdefault(frame.source, []).append(frame.batch.column(EVENT_ID))
    return {source: pa.concat_arrays(parts) for source, parts in ids.items()}


def without(table: pa.Table, column: str, ids: pa.Array | None) -> pa.Table:
    """The rows whose ``column`` is not among ``ids``."""
    return table if ids is None or not len(ids) else table.filter(pc.invert(pc.is_in(table.column(column), ids)))


class Replayer:
    """Plays events and requests against a running gateway."""

    def __init__(
        self, request: Source, path: str, events: Feed, requests: Feed, ingestor: Ingestor, log: Log, online: OnlineStore, client: Client
    ) -> None:
        self._request = request
        self._path = path
        self._events = events
        self._requests = requests
        self._ingestor = ingestor
        self._log = log
        self._online = online
        self._client = client

    def play(self, start: int, end: int) -> Answered:
        """Everything known in ``[start, end)``; the events of the next chunk are taken in while this one's requests run."""
        return asyncio.run(self._play(start, end))

    async def _play(self, start: int, end: int) -> Answered:
        total = Answered()
        chunks = [(at, min(at + CHUNK, end)) for at in range(start, end, CHUNK)]
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as ahead:
            async with self._client:
                waiting = loop.run_in_executor(ahead, self._take_in, *chunks[0])
                for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
                    await waiting
                    if following is not None:
                        waiting = loop.run_in_executor(ahead, self._take_in, *following)
                    requests = list(self._bodies(*chunk))
                    total.add(await self._client.ask_all(requests))
                    total.explained += len(requests[::EXPLAIN_EVERY])
        return total

    def _take_in(self, start: int, end: int) -> None:
        for source, rows in self._events.rows(start, end):
            self._ingestor.ingest(source, rows, at=end)
        self._online.apply(self._log)

    def _bodies(self, start: int, end: int) -> Iterator[bytes]:
        for _, table in self._requests.rows(start, end):
            for number, body in enumerate(request_bodies(self._request, table)):
                explain = "true" if number % EXPLAIN_EVERY == 0 else "false"
                yield self._client.request(f"{self._path}?explain={explain}", body)


def request_bodies(source: Source, table: pa.Table) -> Iterator[bytes]:
    """Each row of the request source as a JSON body; instants as ISO 8601."""
    instants = [name for name in source.schema.names if source.schema[name].type == Type.INSTANT]
    columns: dict[str, Sequence[Any]] = {name: table.column(name).to_pylist() for name in source.schema.names}
    for name in instants:
        times = table.column(name).cast(pa.int64()).to_pylist()
        columns[name] = [None if at is None else format_instant(at) for at in times]
    for row in zip(*columns.values(), strict=True):
        yield msgspec.json.encode(dict(zip(columns, row, strict=True)))


def _known_times(source: Source, table: pa.Table) -> npt.NDArray[np.int64]:
    times = table.column(source.known_time or source.event_time)
    return np.asarray(times.cast(pa.int64()).to_numpy(), dtype=np.int64)
