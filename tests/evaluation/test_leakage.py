"""Planted leaks are found and named, clean sets stay clean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mainspring.clock import DAY, MINUTE
from mainspring.evaluation.leakage import find_leaks, power

Columns = dict[str, np.ndarray]


def clean(rng: np.random.Generator, n: int, *, binary: bool) -> tuple[Columns, np.ndarray, np.ndarray]:
    """Noise and honest signal of several kinds: numbers, tails, few values, text, missing ones, amounts in cents, daily waves."""
    signal = rng.normal(size=n)
    if binary:
        label = (signal + rng.normal(size=n) * rng.uniform(0.5, 2) > rng.uniform(-1.0, 1.5)).astype(float)
    else:
        label = np.exp(signal + rng.normal(size=n) * rng.uniform(0.5, 1))
    as_of = np.sort(rng.integers(0, 30 * DAY, n))
    columns: Columns = {
        "strong": signal,
        "tails": np.exp(2 * signal + rng.normal(size=n)),
        "cents": rng.integers(0, 10_000_000, n),
        "steps": rng.integers(0, 4, n),
        "flag": rng.random(n) < 0.2,
        "wave": np.sin(as_of / DAY) + rng.normal(size=n) * 0.1,
        "gaps": np.where(rng.random(n) < 0.3, np.nan, signal + rng.normal(size=n)),
        "text": np.array([f"t{k}" for k in rng.zipf(1.7, n) % 500], dtype=object),
        **{f"noise {k}": rng.normal(size=n) for k in range(5)},
    }
    columns["text"][rng.random(n) < 0.1] = None
    return columns, label, as_of


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("n", [150, 1500])
def test_clean_sets_raise_no_alarm(binary: bool, n: int) -> None:
    rng = np.random.default_rng(n + binary)
    alarms = [find_leaks(*clean(rng, n, binary=binary), rng=rng) for _ in range(20)]
    assert sum(map(bool, alarms)) <= 1, [str(one) for found in alarms for one in found]


def planted(rng: np.random.Generator, kind: str) -> tuple[Columns, np.ndarray, np.ndarray, dict[str, Any]]:
    columns, label, as_of = clean(rng, 12_000, binary=not kind.startswith("regression"))
    positive = label > 0
    options: dict[str, Any] = {}
    if kind == "label with noise":
        columns["leak"] = np.where(rng.random(12_000) < 0.01, 1 - label, label)
    elif kind == "label as text":
        columns["leak"] = np.where(positive, "yes", "no").astype(object)
    elif kind == "two bands":
        columns["leak"] = np.where(positive, rng.choice([-3.0, 3.0], 12_000), 0) + rng.normal(size=12_000) * 0.5
    elif kind == "filled in afterwards":
        columns["leak"] = np.where(positive & (rng.random(12_000) < 0.35), rng.random(12_000), np.nan)
    elif kind == "status among many":
        columns["leak"] = np.array([f"s{k}" for k in rng.integers(0, 200, 12_000)], dtype=object)
        columns["leak"][positive & (rng.random(12_000) < 0.4)] = "paid back"
    elif kind == "regression, monotone":
        columns["leak"] = np.sqrt(label) + rng.normal(size=12_000) * 0.01
    elif kind == "regression, folded":
        columns["leak"] = np.where(np.log(label) > 0, 5 + np.log(label), -np.log(label))
    elif kind == "hindsight":
        columns["leak"] = np.round(columns["strong"], 1)
        options["known"] = {**columns, "leak": np.where(rng.random(12_000) < 0.03, 0.0, columns["leak"])}
    elif kind == "just before":
        columns["leak"] = label + rng.normal(size=12_000) * 0.8
        options["lagged"] = {**columns, "leak": rng.permutation(columns["leak"])}
    elif kind == "counter":
        columns["leak"] = 10_000 + np.arange(12_000)
    elif kind == "counter, shuffled":
        columns["leak"] = rng.permutation(12_000)
    elif kind == "clock":
        columns["leak"] = as_of + rng.integers(0, MINUTE, 12_000)
    elif kind == "id as text":
        columns["leak"] = np.array([f"{k:016x}" for k in rng.integers(0, 2**60, 12_000)], dtype=object)
    return columns, label, as_of, options


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("label with noise", "label"),
        ("label as text", "label"),
        ("two bands", "label"),
        ("filled in afterwards", "label"),
        ("status among many", "label"),
        ("regression, monotone", "label"),
        ("regression, folded", "label"),
        ("hindsight", "future"),
        ("just before", "future"),
        ("counter", "row id"),
        ("counter, shuffled", "row id"),
        ("clock", "row id"),
        ("id as text", "row id"),
    ],
)
def test_planted_leaks_are_found_and_named(kind: str, named: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        columns, label, as_of, options = planted(rng, kind)
        found = find_leaks(columns, label, as_of, rng=rng, **options)
        assert [(one.feature, one.kind) for one in found] == [("leak", named)], [str(one) for one in found]
        assert str(found[0]).startswith(f"Feature 'leak' may know the {named}: ")


def test_few_rows_that_fit_by_chance_are_no_leak() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros(120)
    label[:2] = 1
    for _ in range(10):
        columns = {f"noise {k}": rng.normal(size=120) for k in range(40)}
        assert not find_leaks(columns, rng.permutation(label), np.arange(120), rng=rng)


def test_power_is_held_out() -> None:
    rng = np.random.default_rng(1)
    label, half = (rng.random(4000) < 0.3).astype(float), rng.permutation(4000) % 2
    ids = np.array([f"{k}" for k in range(4000)], dtype=object)
    assert power(ids, label, half) == pytest.approx(0.5, abs=0.05)
    assert power(label, label, half) == 1.0
    assert power(np.where(label > 0, np.nan, 1.0), label, half) == 1.0
    assert power(np.exp(label), label * 3.5, half) == pytest.approx(1.0, abs=1e-3)
    assert power(rng.normal(size=4000), rng.normal(size=4000), half) == pytest.approx(0.0, abs=0.06)


def test_sets_without_anything_to_say() -> None:
    rng = np.random.default_rng(2)
    empty = np.full(200, np.nan)
    assert not find_leaks({"empty": empty, "none": np.full(200, None)}, rng.integers(0, 2, 200).astype(float), np.arange(200), rng=rng)
    assert not find_leaks({"same": np.ones(200)}, np.ones(200), np.arange(200), rng=rng)
    assert not find_leaks({"few": np.arange(20)}, rng.integers(0, 2, 20).astype(float), np.arange(20), rng=rng)
    lists = np.empty(200, dtype=object)
    lists[:] = [[k % 3] for k in range(200)]
    assert not find_leaks({"lists": lists}, rng.integers(0, 2, 200).astype(float), np.arange(200), rng=rng)


def test_card_payments_leak_their_number_and_how_the_fraud_was_made(data_folder: Path) -> None:
    table = pq.read_table(data_folder / "fraud-handbook-simulated" / "transactions.parquet").slice(0, 300_000)
    columns = {name: table.column(name).to_numpy() for name in table.column_names if name not in ("TX_FRAUD", "TX_DATETIME")}
    as_of = table.column("TX_DATETIME").cast("timestamp[us]").to_numpy().astype(np.int64)
    found = find_leaks(columns, table.column("TX_FRAUD").to_numpy().astype(float), as_of, rng=np.random.default_rng(0))
    assert [(one.feature, one.kind) for one in found] == [("TRANSACTION_ID", "row id"), ("TX_FRAUD_SCENARIO", "label")]
