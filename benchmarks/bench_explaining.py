"""Intervals and sets on real data, residuals against quantiles; and the time that a counterfactual takes."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fraud_weeks import TEST, VALIDATION, Weeks
from harness import QUICK, Bar, bar, write

import mainspring as ms
from mainspring.clock import DAY
from mainspring.columns import Array
from mainspring.evaluation.explain.counterfactuals import Target, counterfactuals
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.ingestion.recording import Recording
from mainspring.metrics import coverage
from mainspring.spec import LightGBM
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.systems import eta
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

Floats = npt.NDArray[np.float64]
LEVELS = (0.1, 0.9)
CUTS = 1 if QUICK else 3
JUDGED = 14 * DAY
SETS = [(by, each) for each in (False, True) for by in ("lac", "aps")]
COUNTERFACTUALS = 20 if QUICK else 200


def main() -> int:
    """Flights, taxi trips where they are, fraud weeks where they are, and counterfactuals on simulated payments."""
    named = os.environ.get("MAINSPRING_DATA")
    with tempfile.TemporaryDirectory() as folder:
        bars = _intervals("flights", eta.load("flights", None), Path(folder) / "flights")
        if named is not None:
            taxi = eta.load("taxi", Path(named) / "nyc-taxi-yellow-sample")
            bars += [*_intervals("taxi", taxi, Path(folder) / "taxi"), *_sets(Weeks(Path(named)))]
    return write("explaining", [*bars, *_counterfactuals()])


def _intervals(name: str, recording: Recording, folder: Path) -> list[Bar]:
    """Both kinds on the same rows: fitted on what was known before a cut, held to the two weeks before it, judged on the two after."""
    dataset = _dataset(recording, folder)
    shown: dict[str, dict[str, list[float]]] = {by: {} for by in ("residuals", "quantiles")}
    for cut in [recording.history_until + (number * JUDGED) for number in range(CUTS)]:
        for by in ("residuals", "quantiles"):
            spec = replace(eta.system.model, interval_by=by)
            assert isinstance(spec, LightGBM)
            for what, value in _judged(spec, dataset, cut):
                shown[by].setdefault(what, []).append(value)
    print(name, shown, file=sys.stderr)
    return [
        bar(f"{name}, {what}", unit, shown["quantiles"][what], peer=float(np.median(shown["residuals"][what])))
        for what, unit in _UNITS.items()
    ]


_UNITS = {
    "coverage": "share",
    "below": "share",
    "above": "share",
    "mean width": "minutes",
    "interval score": "minutes",
    "least coverage of a tenth of the rows, by width": "share",
    "least coverage of a weekday's quarter": "share",
    "seconds to fit": "s",
}


def _judged(spec: LightGBM, dataset: Dataset, cut: int) -> Iterator[tuple[str, float]]:
    earlier = dataset.take((dataset.as_of < cut - JUDGED) & (dataset.label_known_at < cut - JUDGED))
    held_out = dataset.take((dataset.as_of >= cut - JUDGED) & (dataset.as_of < cut) & (dataset.label_known_at < cut))
    judged = dataset.take((dataset.as_of >= cut) & (dataset.as_of < cut + JUDGED))
    names = [feature.name for feature in eta.system.inputs]
    started = time.perf_counter()
    model = fit_model(spec, names, Examples(earlier.columns, earlier.label), Examples(held_out.columns, held_out.label), threads=1)
    seconds = time.perf_counter() - started
    _, low, high = model.predict_bounds(judged.columns)
    assert low is not None
    assert high is not None
    truth, width = judged.label, high - low
    inside = (low <= truth) & (truth <= high)
    yield "coverage", coverage(low, high, truth)
    yield "below", float((truth < low).mean())
    yield "above", float((truth > high).mean())
    yield "mean width", float(width.mean())
    tail = 2 / (1 - LEVELS[1] + LEVELS[0])
    yield "interval score", float((width + tail * (np.maximum(low - truth, 0) + np.maximum(truth - high, 0))).mean())
    yield "least coverage of a tenth of the rows, by width", _least(inside, np.argsort(np.argsort(width)) * 10 // len(width))
    quarter = np.nan_to_num(judged.columns["local_hour"]) // 6 + 4 * np.nan_to_num(judged.columns["weekday"])
    yield "least coverage of a weekday's quarter", _least(inside, quarter.astype(np.int64))
    yield "seconds to fit", seconds


def _least(inside: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> float:
    return min(float(inside[groups == one].mean()) for one in np.unique(groups) if (groups == one).sum() >= 50)


def _dataset(recording: Recording, folder: Path) -> Dataset:
    space = Workspace(folder)
    folder.mkdir()
    log, sources = EventLog(space.events), {one.name: one for one in (eta.system.request, *eta.system.sources)}
    ingestor = Ingestor(log, sources, Quarantine(space.quarantine))
    for source in sources:
        ingestor.ingest(source, recording.tables[source], at=recording.end)
    tables = Tables(space.tables)
    tables.catch_up(log)
    dataset = DatasetBuilder(eta.system, tables).build(None, recording.end)
    log.close()
    return dataset


def _sets(weeks: Weeks) -> list[Bar]:
    """Two classes, 95 %: the coverage of all payments and of frauds, and how many sets say nothing."""
    train, held_out, judged = weeks.train(VALIDATION), weeks.judge(VALIDATION), weeks.judge(TEST)
    names = [f"f{i}" for i in range(train.x.shape[1])]
    rows = [Examples({name: one.x[:, i] for i, name in enumerate(names)}, one.y) for one in (train, held_out, judged)]
    bars = []
    for by, each in SETS:
        spec = LightGBM(objective="binary", trees=100, leaves=16, sets=0.95, sets_by=by, sets_per_class=each)
        inside = fit_model(spec, names, rows[0], rows[1], threads=1).predict_sets(rows[2].columns, np.random.default_rng(0))
        right = inside[np.arange(len(inside)), rows[2].label.astype(int)]
        what = f"fraud, sets by {by}{', each class' if each else ''}"
        figures = {
            "coverage": right.mean(),
            "coverage of frauds": right[rows[2].label == 1].mean(),
            "both classes": inside.all(axis=1).mean(),
        }
        bars += [bar(f"{what}: {name}", "share", [float(value)]) for name, value in figures.items()]
    return bars


def _counterfactuals() -> list[Bar]:
    """300 trees of 31 leaves over 18 numbers and 2 categories; rows above 0.7 that should have been below 0.2."""
    columns, label = _payments(20_000)
    names = list(columns)
    examples = Examples(columns, label)
    model = fit_model(ms.LightGBM(objective="binary", trees=300, leaves=31), names, examples, examples, threads=1)
    rows = np.flatnonzero(model.predict(columns) > 0.7)[:COUNTERFACTUALS]
    times, busy, counts = [], [], []
    for place in rows.tolist():
        row = {name: column[place : place + 1].tolist()[0] for name, column in columns.items()}
        started, worked = time.perf_counter(), time.process_time()
        found = counterfactuals(model, row, Target(below=0.2), columns, names)
        times.append((time.perf_counter() - started) * 1e3)
        busy.append((time.process_time() - worked) * 1e3)
        counts.append(len(found.found))
        if any(one.predicted[0] >= 0.2 for one in found.found):
            raise SystemExit("a counterfactual does not reach its target")
    return [
        bar("a counterfactual: 300 trees, 20 features", "ms", times, bar=200.0),
        bar("its processor time", "ms", busy),
        bar("answers found", "", [float(one) for one in counts]),
        bar("rows for which any was found", "share", [float(np.mean(np.array(counts) > 0))], bar=0.95, above=True),
    ]


def _payments(n: int) -> tuple[dict[str, Array], Floats]:
    rng = np.random.default_rng(0)
    columns: dict[str, Array] = {f"f{i}": rng.normal(size=n) for i in range(18)}
    columns |= {"f18": rng.choice(list("abcdefgh"), n).astype(object), "f19": rng.choice(list("xyz"), n).astype(object)}
    odds = sum(columns[f"f{i}"] * 0.9**i for i in range(18)) + columns["f0"] * columns["f1"] + (columns["f18"] == "a") - 2
    return columns, (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
