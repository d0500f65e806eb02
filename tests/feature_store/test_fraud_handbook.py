"""The Fraud Detection Handbook's published features, declared; built offline, and served from the stream."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from mainspring.clock import DAY, HOUR
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.skew import same
from mainspring.schema import Type
from mainspring.storage.event_log import EventLog
from mainspring.storage.stores import open_key_value

DELAY = 7 * DAY
WINDOWS = ("1d", "7d", "30d")

transactions = ms.Source(
    "transactions", {"tx": int, "at": datetime, "customer": int, "terminal": int, "amount": float}, event_time="at", event_id="tx"
)
reports = ms.Source(
    "reports", {"tx": int, "reported_at": datetime, "terminal": int, "fraud": bool}, event_time="reported_at", event_id="tx"
)
customer, terminal = transactions.per("customer"), reports.per("terminal")
system = ms.System(
    "handbook",
    question="Is this payment fraud?",
    request=transactions,
    features=[
        *(customer.count(window) for window in WINDOWS),
        *(customer.mean("amount", window) for window in WINDOWS),
        *(terminal.count(window) for window in WINDOWS),
        *(terminal.mean("fraud", window) for window in WINDOWS),
    ],
    label=ms.Label(reports, "fraud", on="tx", matures_after="8d"),
    model=ms.LightGBM(),
)


@pytest.fixture(scope="module", params=[7, pytest.param(1, marks=pytest.mark.long)], ids=["a seventh", "all"])
def tables(request: pytest.FixtureRequest, data_folder: Path) -> dict[str, pa.Table]:
    """Every seventh customer's transactions of the first 45 days, or all; what came of each is reported seven days later."""
    rows = pq.read_table(data_folder / "fraud-handbook-simulated" / "transactions.parquet")
    at = rows.column("TX_DATETIME").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    keep = (rows.column("CUSTOMER_ID").to_numpy() % request.param == 0) & ((at < at[0] + 45 * DAY) | (request.param == 1))
    rows, at = rows.filter(pa.array(keep)), at[keep]
    tx, at_terminal = (rows.column(name).cast(pa.int64()) for name in ("TRANSACTION_ID", "TERMINAL_ID"))
    envelope = {"_event_id": tx, "_event_time": at, "_known_time": at}
    asked = {"tx": tx, "at": at, "customer": rows.column("CUSTOMER_ID").cast(pa.int64()), "terminal": at_terminal}
    amount, fraud = rows.column("TX_AMOUNT").cast(pa.float64()), rows.column("TX_FRAUD").cast(pa.bool_())
    late = {"tx": tx, "reported_at": at + DELAY, "terminal": at_terminal, "fraud": fraud}
    return {
        "transactions": pa.table({**asked, "amount": amount, **envelope}),
        "reports": pa.table({**late, "_event_id": tx, "_event_time": at + DELAY, "_known_time": at + DELAY}),
    }


@pytest.fixture(scope="module")
def built(tables: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tables")
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    questions = tables["transactions"].select(["tx", "at", "customer", "terminal", "amount"])
    questions = questions.append_column(AS_OF, questions.column("at"))
    return OfflineStore(system, lambda name: [str(folder / f"{name}.parquet")]).features(questions)


def test_they_are_the_published_ones(tables: dict[str, pa.Table], built: dict[str, Any]) -> None:
    """The handbook counts the payment itself as well, and opens its windows where these close them."""
    frame = tables["transactions"].select(["at", "customer", "amount"]).to_pandas()
    frame.index = pd.to_datetime(frame["at"], unit="us")
    for window in WINDOWS:
        rolling = frame.groupby("customer")["amount"].rolling(window.upper())
        published = rolling.count().reset_index(level=0, drop=True)
        order = frame.reset_index(drop=True).groupby("customer").indices
        rows = np.concatenate([order[one] for one in sorted(order)])
        ours = built[f"customer__count_{window}"][rows] + 1
        assert np.mean(published.to_numpy() == ours) > 0.998
        means = rolling.mean().to_numpy()
        before = np.nan_to_num(built[f"customer__amount_mean_{window}"][rows]) * (ours - 1)
        assert np.mean(np.isclose(means, (before + frame["amount"].to_numpy()[rows]) / ours)) > 0.998


def test_the_stream_serves_what_is_built_offline(tables: dict[str, pa.Table], built: dict[str, Any], tmp_path: Path) -> None:
    log, store = EventLog(tmp_path / "log", fsync=False), open_key_value(f"lmdb:{tmp_path}/online")
    online = OnlineStore(system, store)
    asked = tables["transactions"]
    instants = asked.column("at").to_numpy()
    served: list[dict[str, Any]] = []
    for start in range(int(instants[0]), int(instants[-1]) + DELAY + 1, 6 * HOUR):
        for name, table in tables.items():
            times = table.column("_event_time").to_numpy()
            part = table.slice(*_between(times, start, start + 6 * HOUR)).combine_chunks()
            if len(part):
                log.append(name, part.to_batches()[0])
        online.apply(log)
        begin, length = _between(instants, start, start + 6 * HOUR)
        questions = asked.slice(begin, length)
        columns = {name: questions.column(name).to_pylist() for name in ("customer", "terminal")}
        served.append(online.read_many(columns, questions.column("at").to_numpy()).values)
    store.close()
    for aggregate in system.aggregates:
        column = np.concatenate([part[aggregate.name].astype(np.float64) for part in served])
        assert len(column) == len(asked) > 50_000
        assert same(column, built[aggregate.name].astype(np.float64), Type.FLOAT).all(), aggregate.name


def _between(times: np.ndarray, start: int, end: int) -> tuple[int, int]:
    first, last = times.searchsorted([start, end])
    return int(first), int(last - first)
