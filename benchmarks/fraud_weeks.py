"""The Fraud Detection Handbook's payments and its protocol: a training week, seven days until its frauds are known, a week to judge by."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import mainspring as ms
from mainspring.clock import DAY, HOUR, parse_instant
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.models.protocol import Rows

WEEK = DELAY = 7 * DAY
VALIDATION = parse_instant("2018-07-25")
TEST = parse_instant("2018-08-08")
FIRST, END = parse_instant("2018-05-01"), parse_instant("2018-10-01")
"""The payments that are questions; their features look back on those from April on."""
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
        *(one for window in WINDOWS for one in (customer.count(window), customer.mean("amount", window))),
        *(one for window in WINDOWS for one in (terminal.count(window), terminal.mean("fraud", window))),
    ],
    label=ms.Label(reports, "fraud", on="tx", matures_after="8d"),
    model=ms.LightGBM(),
)


class Weeks:
    """The payments with their features, built by the feature store once and kept in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        kept = Path(tempfile.gettempdir()) / "mainspring-fraud-payments.parquet"
        if not kept.exists():
            draft = kept.with_suffix(f".{os.getpid()}")
            pq.write_table(_build(folder), draft)
            draft.replace(kept)
        table = pq.read_table(kept)
        self._known = {name: table.column(name).to_numpy() for name in ("at", "customer", "fraud")}
        self._x = np.column_stack([table.column(name).to_numpy() for name in table.column_names if name not in self._known])

    def train(self, judged: int) -> Rows:
        """The week whose frauds are known just when the judged week begins."""
        return self.between(judged - DELAY - WEEK, judged - DELAY)

    def judge(self, judged: int, weeks: int = 1) -> Rows:
        """The judged weeks without the payments of customers of whom a fraud since the training week is known by that day."""
        return self._rows(self._judged(judged, weeks))

    def customers(self, judged: int, weeks: int = 1) -> npt.NDArray[np.int64]:
        """Who made each payment of `judge`."""
        return np.asarray(self._known["customer"][self._judged(judged, weeks)], dtype=np.int64)

    def judged_days(self, judged: int) -> npt.NDArray[np.int64]:
        """The day of each payment of `judge`."""
        return np.asarray(self._known["at"][self._judged(judged, 1)] // DAY, dtype=np.int64)

    def between(self, start: int, end: int) -> Rows:
        """All payments from one instant to another."""
        return self._rows((self._known["at"] >= start) & (self._known["at"] < end))

    def days(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """The day of each row of `between`."""
        at = self._known["at"]
        return np.asarray(at[(at >= start) & (at < end)] // DAY, dtype=np.int64)

    def _judged(self, judged: int, weeks: int) -> npt.NDArray[np.bool_]:
        at, customers = self._known["at"], self._known["customer"]
        chosen = np.zeros(len(at), dtype=bool)
        for day in range(judged, judged + weeks * WEEK, DAY):
            known = (at >= judged - DELAY - WEEK) & (at < day - DELAY) & self._known["fraud"]
            chosen |= (at >= day) & (at < day + DAY) & ~np.isin(customers, customers[known])
        return chosen

    def _rows(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        return Rows(self._x[chosen], self._known["fraud"][chosen].astype(np.float64))


def _build(folder: Path) -> pa.Table:
    rows = pq.read_table(folder / "fraud-handbook-simulated" / "transactions.parquet")
    at = rows.column("TX_DATETIME").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    tx, at_terminal, by = (rows.column(name).cast(pa.int64()) for name in ("TRANSACTION_ID", "TERMINAL_ID", "CUSTOMER_ID"))
    amount, fraud = rows.column("TX_AMOUNT").cast(pa.float64()), rows.column("TX_FRAUD").cast(pa.bool_())
    envelope = {"_event_id": tx, "_event_time": at, "_known_time": at}
    late = {"_event_id": tx, "_event_time": at + DELAY, "_known_time": at + DELAY}
    asked = pa.table({"tx": tx, "at": at, "customer": by, "terminal": at_terminal, "amount": amount, **envelope})
    told = pa.table({"tx": tx, "reported_at": at + DELAY, "terminal": at_terminal, "fraud": fraud, **late})
    wanted = pa.array((at >= FIRST) & (at < END))
    with tempfile.TemporaryDirectory() as scratch:
        for name, table in (("transactions", asked), ("reports", told)):
            pq.write_table(table, Path(scratch) / f"{name}.parquet")
        questions = asked.filter(wanted).select(["tx", "at", "customer", "terminal", "amount"])
        questions = questions.append_column(AS_OF, questions.column("at"))
        built = OfflineStore(system, lambda name: [f"{scratch}/{name}.parquet"]).features(questions)
    own = {"at": at[wanted.to_numpy(zero_copy_only=False)], "customer": questions.column("customer"), "fraud": fraud.filter(wanted)}
    hours, days = own["at"] % DAY // HOUR, own["at"] // DAY
    direct = {"amount": questions.column("amount"), "night": hours <= 6, "weekend": (days + 3) % 7 >= 5}
    features = {name: pa.array(np.asarray(column, dtype=np.float64)) for name, column in {**direct, **built}.items()}
    return pa.table({**own, **features})
