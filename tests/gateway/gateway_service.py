"""A small system and service for the gateway's tests; run as a script it serves until it is stopped."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.clock import SystemClock
from mainspring.errors import MainspringError, RequestError, ServingError
from mainspring.gateway import serve
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.serving.answer import Ask
from mainspring.serving.health import Health
from mainspring.spec import Label, LightGBM, Source, System, feature


@feature(name="log_miles")
def log_miles(miles):
    return np.log1p(miles)


trips = Source(
    "trips",
    {"trip_id": str, "starts_at": datetime, "zone": str, "miles": float, "seats": int | None, "express": bool | None},
    event_time="starts_at",
    event_id="trip_id",
    ranges={"miles": (0, 1000), "starts_at": ("2013-01-01", None), "seats": (2, 8)},
    derive=[log_miles],
)
arrivals = Source("arrivals", {"trip_id": str, "arrived_at": datetime, "minutes": float}, event_time="arrived_at", event_id="trip_id")
zone = arrivals.per("trip_id")
SYSTEM = System(
    "eta",
    question="How many minutes will this trip take?",
    request=trips,
    features=[trips["miles"], trips["log_miles"], zone.mean("minutes")],
    label=Label(arrivals, "minutes", on="trip_id", matures_after="1d"),
    model=LightGBM(),
)
TRIP = {"trip_id": "t1", "starts_at": "2025-03-01T12:00:00Z", "zone": "a", "miles": 3}


class Answer(msgspec.Struct):
    request_id: str
    prediction: float = msgspec.field(name="minutes")
    answered_by: str
    version: str | None
    reasons: list[str]


class MemoryLog:
    def __init__(self) -> None:
        self.end = 0

    def append(self, source: str, batch: pa.RecordBatch) -> int:
        assert source in ("trips", "arrivals")
        self.end += batch.num_rows
        return self.end - batch.num_rows


@dataclass
class AskedRule:
    service: RuleService
    size: int
    number: int

    def answer_many(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        return [Answer(ask.request_id, self.number * ask.row["miles"], "rule", str(self.number), []) for ask in asks]

    def answer_late(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        return [ServingError("System 'eta': too late.") for _ in asks]


class RuleService:
    """Two minutes a mile; some zones are special."""

    def __init__(self, folder: Path) -> None:
        self.system = SYSTEM
        self.problem: str | None = None
        self.size = 100
        self.loads: list[int] = []
        self._ingestor = Ingestor(MemoryLog(), {"trips": trips, "arrivals": arrivals}, Quarantine(folder))

    def answer_many(self, asks: Sequence[Ask], *, shadow: bool = True) -> list[Answer | MainspringError]:
        return [self._answer(ask) for ask in asks]

    def answer_late(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        return [ServingError("System 'eta': too late.") for _ in asks]

    def _answer(self, ask: Ask) -> Answer | MainspringError:
        row = ask.row
        if row["zone"] == "nowhere":
            return RequestError("zone", "was never seen")
        if row["zone"] == "down":
            return ServingError("System 'eta': no model and no rule could answer.")
        if row["zone"] == "bug":
            raise ZeroDivisionError("secret detail")
        if row["zone"] == "slow":
            time.sleep(0.5)
        if row["zone"] == "busy":
            time.sleep(0.005)
        return Answer(ask.request_id, 2 * row["miles"], "rule", None, [f"log_miles {row['log_miles']:.2f}"] if ask.explain else [])

    def ingest(self, source: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        ingested = self._ingestor.ingest_rows(source, rows, SystemClock().now())
        return {"accepted": ingested.accepted, "rejected": ingested.rejected}

    def load(self, version: int, most: int) -> AskedRule:
        if version == 404:
            raise RequestError("version", "System 'eta' has no version 404.", 404)
        if self.size > most:
            raise RequestError("version", f"needs {self.size} bytes, of {most}")
        time.sleep(0.05)
        self.loads.append(version)
        return AskedRule(self, self.size, version)

    def counts(self) -> dict[str, float]:
        return {}

    def ready(self) -> str | None:
        return self.problem

    def health(self) -> Health:
        return Health({})

    def metadata(self) -> dict[str, Any]:
        return {"champion": None}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        serve(RuleService(Path(name)), announce=lambda port, _: print(port, flush=True), exit_with_parent="--with-parent" in sys.argv)
    print("ended", flush=True)
