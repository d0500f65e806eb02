"""From a data set to a version in the registry."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import TrainingError
from mainspring.model_registry.registry import Registry, Version
from mainspring.models.adapters.lightgbm import Booster
from mainspring.models.baselines import GroupMedians, LinearLine
from mainspring.models.conformal import ConformalInterval
from mainspring.models.encoding import Encoder
from mainspring.models.tabular import TabularModel, offset_of
from mainspring.spec import GroupMedian, LinearRule, System
from mainspring.training.dataset import Dataset

MIN_ROWS = 200
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
                "Ingest more history or shorten LightGBM(holdout=...)."
            )
    return earlier, later


def fit(system: System, dataset: Dataset, *, threads: int = 2, shuffle_labels: np.random.Generator | None = None) -> Trained:
    """Fit the System's model and baselines on ``dataset`` less its holdout, and the interval on the holdout.

    ``shuffle_labels`` permutes the training labels: a model that must be worse, to prove that worse ones are stopped.
    """
    started = time.perf_counter()
    spec = system.model
    earlier, holdout = split(system, dataset)
    label = earlier.label if shuffle_labels is None else shuffle_labels.permutation(earlier.label)
    names = [feature.name for feature in system.inputs]
    encoder = Encoder.fit(earlier.columns, names)
    offset = np.zeros(len(earlier)) if spec.offset is None else offset_of(earlier.columns[spec.offset])
    booster = Booster.fit(
        encoder.transform(earlier.columns),
        label - offset,
        names=names,
        categorical=encoder.categorical,
        objective=spec.objective,
        trees=spec.trees,
        leaves=spec.leaves,
        learning_rate=spec.learning_rate,
        min_leaf_rows=spec.min_leaf_rows,
        feature_fraction=spec.feature_fraction,
        l2=spec.l2,
        seed=spec.seed,
        threads=threads,
    )
    model = TabularModel(encoder, booster, spec.offset, float(offset.mean()), None)
    if spec.interval is not None:
        interval = ConformalInterval.fit(model.predict(holdout.columns), holdout.label, spec.interval)
        model = TabularModel(encoder, booster, spec.offset, float(offset.mean()), interval)
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
    system: System, registry: Registry, trained: Trained, *, at: int, metrics: Mapping[str, Any], code: str, note: str = ""
) -> Version:
    """Record the data set and the model with all that serving needs; returns the model's version."""
    manifest = trained.dataset.manifest
    dataset = registry.register("dataset", system.name, {**manifest, "hash": trained.dataset.hash}, at=at)
    artifacts = to_artifacts(system, trained)
    body = {
        "system": system.hash,
        "features": system.feature_hashes,
        "dataset": dataset.id,
        "parameters": {name: getattr(system.model, name) for name in ("objective", "trees", "leaves", "learning_rate", "seed", "offset")},
        "metrics": dict(metrics),
        "seconds": round(trained.seconds, 3),
        "code": code,
        "note": note,
        "bytes": sum(map(len, artifacts.values())),
    }
    return registry.register("model", system.name, body, artifacts, at=at)


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
