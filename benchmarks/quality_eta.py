"""Arrival times: the declaration of the system `eta`, trained once on the protocol's months and judged on those after."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
from harness import QUICK
from quality_lines import Floats, Line, measure

import mainspring as ms
from mainspring.clock import DAY
from mainspring.evaluation.baselines import Rows, Truth, predict_baselines
from mainspring.ingestion.ingest import Ingestor
from mainspring.ingestion.quarantine import Quarantine
from mainspring.ingestion.recording import Recording
from mainspring.ingestion.wall_time import wall_instant
from mainspring.metrics.regression import mae
from mainspring.spec import System
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.systems.eta import load, system
from mainspring.systems.eta.flights import NEW_YORK
from mainspring.systems.eta.sources import arrivals
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model
from mainspring.training.train import fit_baselines

PLAIN = "LightGBM's regressor at its own defaults but for an absolute loss, on the same matrix"
TAXI = (wall_instant("2019-11-01", NEW_YORK), wall_instant("2019-12-01", NEW_YORK), wall_instant("2020-01-01", NEW_YORK))
FLIGHTS = (wall_instant("2013-10-01", NEW_YORK), wall_instant("2013-11-01", NEW_YORK), wall_instant("2014-01-01", NEW_YORK))
AIRBORNE = replace(system, label=ms.Label(arrivals, "airborne_minutes", on="trip_id", matures_after="1d"))
"""The same declaration, asked for the minutes in the air instead of those from gate to gate."""


def rmsle(predicted: Floats, truth: Floats) -> float:
    """Root mean squared error of ``ln(1 + seconds)``."""
    return float(np.sqrt(np.mean((np.log1p(predicted) - np.log1p(truth)) ** 2)))


def within_two_minutes(predicted: Floats, truth: Floats) -> float:
    """Share of trips told to two minutes, in percent."""
    return float(np.mean(np.abs(predicted - truth) <= 120) * 100)


def lines(data: Path, threads: int) -> list[Line]:
    """The taxi trips with and without a router's distance, and the flights from gate to gate and in the air."""
    taxi = data / "nyc-taxi-yellow-sample"
    wanted = [("taxi-router", (184.4, 0.294, 52.1))] if QUICK else [("taxi", (225.5, 0.396, 41.8)), ("taxi-router", (184.4, 0.294, 52.1))]
    found = [_taxi(load(name, taxi), floors, threads) for name, floors in wanted]
    return found if QUICK else [*found, *_flights(load("flights", None), threads)]


def _taxi(recording: Recording, floors: tuple[float, float, float], threads: int) -> Line:
    dataset = build(system, recording, TAXI[-1])
    ours, plain, judged, _ = _answers(system, dataset, TAXI, threads)
    said, shared, days = (ours * 60, plain * 60), [judged.label * 60], judged.as_of // DAY
    router = recording.name == "taxi-router"
    return Line(
        f"New York taxi trips, {'with' if router else 'without'} a router's distance",
        "`systems/eta` as declared; trained to 2019-10, holdout 2019-11, judged on 2019-12",
        PLAIN,
        [
            measure("MAE", "s", mae, said, shared, floor=floors[0], higher=False, blocks=days),
            measure("RMSLE", "", rmsle, said, shared, floor=floors[1], higher=False, blocks=days),
            measure("within 2 min", "%", within_two_minutes, said, shared, floor=floors[2], blocks=days),
        ],
    )


def _flights(recording: Recording, threads: int) -> list[Line]:
    run = "`systems/eta` as declared{}; trained January to September 2013, holdout October, judged on November and December"
    found = []
    for declared, what in ((AIRBORNE, "in the air"), (system, "from gate to gate")):
        dataset = build(declared, recording, FLIGHTS[-1])
        ours, plain, judged, rule = _answers(declared, dataset, FLIGHTS, threads)
        days, shared = judged.as_of // DAY, [judged.label * 60]
        air = declared is AIRBORNE
        floor = 497.0 if air else round(mae(rule * 60, judged.label * 60), 1)
        asked = run.format(", asked for minutes in the air" if air else "")
        error = measure("MAE", "s", mae, (ours * 60, plain * 60), shared, floor=floor, higher=False, blocks=days)
        found.append(Line(f"New York flights, {what}", asked, PLAIN, [error]))
    return found


def build(declared: System, recording: Recording, until: int) -> Dataset:
    """The labelled questions before ``until`` with their features as known then, kept in a temporary folder."""
    place = Path(tempfile.gettempdir()) / f"mainspring-quality-{recording.name}-{declared.hash[:12]}"
    tables = Tables(place / "tables")
    if not (place / "complete").exists():
        sources = {one.name: one for one in (declared.request, *declared.sources)}
        log = EventLog(place / "events", fsync=False)
        ingestor = Ingestor(log, sources, Quarantine(place / "quarantine"))
        for name in sources:
            ingestor.ingest(name, recording.tables[name], at=recording.end)
        tables.catch_up(log)
        log.close()
        (place / "complete").touch()
    return DatasetBuilder(declared, tables, place / "datasets").build(None, until + DAY)


def _answers(declared: System, dataset: Dataset, months: tuple[int, int, int], threads: int) -> tuple[Floats, Floats, Dataset, Floats]:
    """What the declared model, the plain one and the declared recent ratio say of the judged months."""
    held, judged, end = months
    earlier = dataset.take((dataset.as_of < held) & (dataset.label_known_at < held))
    holdout = dataset.take((dataset.as_of >= held) & (dataset.as_of < judged))
    asked = dataset.take((dataset.as_of >= judged) & (dataset.as_of < end))
    names = [feature.name for feature in declared.inputs]
    model = fit_model(
        declared.model, names, Examples(earlier.columns, earlier.label), Examples(holdout.columns, holdout.label), threads=threads
    )
    matrix: Mapping[str, Floats] = {side: model.encoder.transform(rows.columns) for side, rows in (("earlier", earlier), ("asked", asked))}
    plain = lightgbm.LGBMRegressor(objective="regression_l1", n_jobs=threads, verbosity=-1)
    columns = [names.index(name) for name in model.encoder.categorical]
    plain.fit(matrix["earlier"], earlier.label, categorical_feature=columns)
    truth = Truth(dataset.columns, dataset.label, dataset.label_known_at)
    rules = predict_baselines(declared, fit_baselines(declared, earlier), Rows(asked.columns, asked.as_of), truth)
    return model.predict(asked.columns), np.asarray(plain.predict(matrix["asked"])), asked, rules["recent_ratio"]
