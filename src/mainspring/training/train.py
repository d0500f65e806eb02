"""From a data set to a version in the registry."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.model_registry.manifest import dependencies
from mainspring.models.baselines import GroupMedians, LinearLine
from mainspring.models.tabular import TabularModel
from mainspring.spec import GroupMedian, LinearRule, System
from mainspring.spec.splits import Rows
from mainspring.training.dataset import Dataset
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

MIN_ROWS = 200
TIMED_ROWS = 200
CARD = "card.md"
FittedBaseline = LinearLine | GroupMedians


@dataclass(frozen=True, slots=True)
class Sides:
    """Rows that train, that early stopping, calibration and interval look at, and that judge; the last two may be the same."""

    train: Dataset
    validation: Dataset
    test: Dataset


@dataclass(frozen=True, slots=True)
class Start:
    """A fitted model to go on from: its version, and the ``until`` of the data set that it was fitted to."""

    version: str
    model: TabularModel
    until: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model with the baselines fitted on all training rows, the rows that judge it, and the version that it went on from.

    ``rows`` is the number of rows that the model itself was fitted to.
    """

    model: TabularModel
    baselines: Mapping[str, FittedBaseline]
    dataset: Dataset
    holdout: Dataset
    seconds: float
    rows: int
    start: str = ""


def split(system: System, dataset: Dataset) -> Sides:
    """The rows of a data set as `Model.held_out` parts them.

    Where time parts them, a row whose label became known only when a later side had begun is on none, so that nothing leaks.

    Raises:
        TrainingError: fewer than 200 rows on one side.
    """
    return _sides(system, dataset, np.ones(len(dataset), dtype=np.bool_))


def fit(
    system: System, dataset: Dataset, *, threads: int = 2, shuffle_labels: np.random.Generator | None = None, start: Start | None = None
) -> Trained:
    """Fit the System's model and baselines on the training side of ``dataset``; see `Model` for what is looked at on the others.

    With ``start`` the model goes on from that one, on the training rows that are new since. ``shuffle_labels`` permutes the training
    labels: a model that must be worse, to prove that worse ones are stopped.

    Raises:
        TrainingError: there are too few rows, or no model can go on from ``start``.
    """
    began = time.perf_counter()
    sides = split(system, dataset)
    learned = sides.train if start is None else _sides(system, dataset, ~_seen(system, dataset, start.until)).train
    label = learned.label if shuffle_labels is None else shuffle_labels.permutation(learned.label)
    names = [feature.name for feature in system.inputs]
    examples, held_out = Examples(learned.columns, label), Examples(sides.validation.columns, sides.validation.label)
    model = fit_model(system.model, names, examples, held_out, threads=threads, start=None if start is None else start.model)
    baselines, seconds = fit_baselines(system, sides.train), time.perf_counter() - began
    return Trained(model, baselines, dataset, sides.test, seconds, len(learned), "" if start is None else start.version)


def _sides(system: System, dataset: Dataset, taken: npt.NDArray[np.bool_]) -> Sides:
    """The sides of a data set, with those training rows alone that are ``taken``."""
    fold = system.model.held_out.folds(_rows(system, dataset, int(dataset.manifest["until"])))[0]
    validation = dataset.take(fold.validation)
    sides = Sides(dataset.take(fold.train[taken[fold.train]]), validation, dataset.take(fold.test) if len(fold.test) else validation)
    setting = "holdout" if system.model.split is None else "split"
    for name, side in (("training", sides.train), ("held-out", validation), ("held-out", sides.test)):
        if len(side) < MIN_ROWS:
            raise TrainingError(
                f"System '{system.name}': {len(side)} {name} rows{'' if taken.all() else ' that are new'}, {MIN_ROWS} are needed. "
                f"Ingest more history, or hold out less: {type(system.model).__name__}({setting}=...)."
            )
    return sides


def _seen(system: System, dataset: Dataset, until: int) -> npt.NDArray[np.bool_]:
    """Which rows were on the training side when the data went up to ``until``."""
    seen = (dataset.as_of < until) & (dataset.label_known_at < until)
    if seen.any():
        seen[seen] = system.model.held_out.sides(_rows(system, dataset.take(seen), until))[0]
    return seen


def _rows(system: System, dataset: Dataset, until: int) -> Rows:
    group = None if system.model.group is None else dataset.columns[system.model.group]
    return Rows(dataset.as_of, dataset.label_known_at, group, until)


def fit_baselines(system: System, dataset: Dataset) -> dict[str, FittedBaseline]:
    """The declared lines and group medians, fitted."""
    fitted: dict[str, FittedBaseline] = {}
    for baseline in system.baselines:
        if isinstance(baseline, LinearRule):
            fitted[baseline.name] = LinearLine.fit(numeric(dataset.columns[baseline.on]), dataset.label)
        elif isinstance(baseline, GroupMedian):
            fitted[baseline.name] = GroupMedians.fit([dataset.columns[name] for name in baseline.by], dataset.label)
    return fitted


def register(
    system: System,
    registry: Registry,
    trained: Trained,
    *,
    at: int,
    metrics: Mapping[str, Any],
    code: str,
    note: str = "",
    licence: str = "",
    card: str = "",
) -> Version:
    """Record the data set and the model with all that serving needs and all that is known of it; returns the model's version.

    ``licence`` is an SPDX expression, ``card`` the model's card in Markdown.
    """
    manifest = trained.dataset.manifest
    dataset = registry.register("dataset", system.name, {**manifest, "hash": trained.dataset.hash}, at=at)
    artifacts = {**to_artifacts(system, trained), **({CARD: card.encode()} if card else {})}
    body = ModelManifest(
        system=system.hash,
        features=system.feature_hashes,
        schema=schema(system),
        dataset=dataset.id,
        parameters={"model": type(system.model).__name__, **asdict(system.model)},
        metrics=dict(metrics),
        seed=system.model.seed,
        seconds=round(trained.seconds, 3),
        bytes=sum(map(len, artifacts.values())),
        latency=latency(trained.model, trained.holdout),
        code=code,
        environment=dependencies(),
        card=CARD if card else "",
        licence=licence,
        note=note,
        start=trained.start,
        rows=trained.rows,
    )
    return registry.register("model", system.name, body.to_dict(), artifacts, at=at)


def schema(system: System) -> dict[str, dict[str, str]]:
    """The type of each column of the request, ``?`` after it where null is allowed, and of the label."""
    label = system.label
    request = {field.name: f"{field.type}{'?' if field.nullable else ''}" for field in system.request.columns.fields}
    return {"request": request, "label": {label.column: str(label.source.columns[label.column].type)}}


def latency(model: TabularModel, rows: Dataset) -> dict[str, float]:
    """Median and 99th percentile of the time to predict one row, in microseconds, over up to 200 ``rows``, on this machine."""
    columns = [rows.columns[name][:TIMED_ROWS].tolist() for name in model.encoder.names]
    times = [_timed(model, values) for values in zip(*columns, strict=True)]
    return {name: round(float(np.percentile(times, q)), 1) for name, q in (("p50", 50), ("p99", 99))} if times else {}


def _timed(model: TabularModel, values: tuple[Any, ...]) -> float:
    row = [None if value != value else value for value in values]
    started = time.perf_counter_ns()
    model.predict_row(row)
    return (time.perf_counter_ns() - started) / 1_000


def to_artifacts(system: System, trained: Trained) -> dict[str, bytes]:
    """All that serving needs of a training, as files: model, baselines, declaration."""
    return {
        **trained.model.to_artifacts(),
        "baselines.json": json.dumps({name: fitted.to_dict() for name, fitted in trained.baselines.items()}, sort_keys=True).encode(),
        "system.json": system.to_json().encode(),
    }


def load_baselines(system: System, registry: Registry, version: Version) -> dict[str, FittedBaseline]:
    """The baselines that were fitted and registered with a version."""
    bodies = json.loads(registry.artifact(version, "baselines.json"))
    fitted: dict[str, FittedBaseline] = {}
    for one in system.baselines:
        if isinstance(one, LinearRule):
            fitted[one.name] = LinearLine.from_dict(bodies[one.name])
        elif isinstance(one, GroupMedian):
            fitted[one.name] = GroupMedians.from_dict(bodies[one.name])
    return fitted


def numeric(column: Array) -> npt.NDArray[np.float64]:
    """A numeric feature column as float64, NaN for null."""
    return (
        np.array([np.nan if value is None else value for value in column], dtype=np.float64)
        if column.dtype == object
        else column.astype(float)
    )
