"""From a data set to a version in the registry."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.model_registry.manifest import environment
from mainspring.models.baselines import GroupMedians, LinearLine
from mainspring.models.tabular import TabularModel
from mainspring.spec import GroupMedian, LinearRule, System
from mainspring.training.dataset import Dataset
from mainspring.training.fitting import Examples, fit_model

MIN_ROWS = 200
TIMED_ROWS = 200
CARD = "card.md"
EVALUATION = "evaluation.json"
FittedBaseline = LinearLine | GroupMedians


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model with the baselines fitted on the same rows, and the rows that were held back."""

    model: TabularModel
    baselines: Mapping[str, FittedBaseline]
    dataset: Dataset
    holdout: Dataset
    seconds: float


def split(system: System, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Training rows and the newest ``model.holdout`` of them, parted in time.

    A row whose label became known only inside the holdout is left out of training, so that nothing of the holdout leaks.

    Raises:
        TrainingError: fewer than 200 rows on one side.
    """
    cut = int(dataset.manifest["until"]) - system.model.holdout_us
    earlier, later = dataset.where((dataset.as_of < cut) & (dataset.label_known_at < cut)), dataset.where(dataset.as_of >= cut)
    for side, part in (("training", earlier), ("holdout", later)):
        if len(part) < MIN_ROWS:
            raise TrainingError(
                f"System '{system.name}': {len(part)} {side} rows, {MIN_ROWS} are needed. "
                f"Ingest more history or shorten {type(system.model).__name__}(holdout=...)."
            )
    return earlier, later


def held_out(system: System) -> dict[str, Any]:
    """How `split` holds rows out, and what else of the fit looks at them."""
    model = system.model
    uses = {"early stopping": getattr(model, "patience", None), "calibration": model.calibration, "the interval": model.interval}
    return {"kind": "newest rows", "length": model.holdout, "also used for": [name for name, used in uses.items() if used is not None]}


def fit(system: System, dataset: Dataset, *, threads: int = 2, shuffle_labels: np.random.Generator | None = None) -> Trained:
    """Fit the System's model and baselines on ``dataset`` less its holdout, and the interval on the holdout.

    ``shuffle_labels`` permutes the training labels: a model that must be worse, to prove that worse ones are stopped.
    """
    started = time.perf_counter()
    earlier, holdout = split(system, dataset)
    label = earlier.label if shuffle_labels is None else shuffle_labels.permutation(earlier.label)
    names = [feature.name for feature in system.inputs]
    examples, held_out = Examples(earlier.columns, label), Examples(holdout.columns, holdout.label)
    model = fit_model(system.model, names, examples, held_out, threads=threads)
    return Trained(model, fit_baselines(system, earlier), dataset, holdout, time.perf_counter() - started)


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
    card: Callable[[ModelManifest], str] | None = None,
    evaluation: bytes = b"",
) -> Version:
    """Record the data set and the model with all that serving needs and all that is known of it; returns the model's version.

    ``licence`` is an SPDX expression, ``card`` writes the model's card in Markdown from its manifest, ``evaluation`` is JSON.
    """
    manifest = trained.dataset.manifest
    dataset = registry.register("dataset", system.name, {**manifest, "hash": trained.dataset.hash}, at=at)
    artifacts = {**to_artifacts(system, trained), **({EVALUATION: evaluation} if evaluation else {})}
    body = ModelManifest(
        system=system.hash,
        features=system.feature_hashes,
        schema=schema(system),
        dataset=dataset.id,
        parameters={"model": type(system.model).__name__, **asdict(system.model)},
        metrics=dict(metrics),
        seed=system.model.seed,
        seconds=round(trained.seconds, 3),
        latency=latency(trained.model, trained.holdout),
        code=code,
        environment=environment(),
        card=CARD if card else "",
        licence=licence,
        note=note,
    )
    if card is not None:
        artifacts[CARD] = card(body).encode()
    size = sum(map(len, artifacts.values()))
    return registry.register("model", system.name, {**body.to_dict(), "bytes": size}, artifacts, at=at)


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
