"""From a registered version to a smaller one: made, measured beside it, judged, and registered with what it was made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mainspring.clock import DAY
from mainspring.errors import DeclarationError, RegistryError, TrainingError
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.model_registry.manifest import dependencies
from mainspring.models.tabular import TabularModel
from mainspring.spec import Model, System
from mainspring.storage.tables import Tables
from mainspring.training.compression.measure import Bound, Side, Table, side_by_side, str_of, values_of
from mainspring.training.compression.steps import Material, Step, applied, beside, to_dict
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.examples import Examples
from mainspring.training.reproduce import values
from mainspring.training.train import Sides, split

Progress = Callable[[str, int, int], None]
UNCHANGED = ("baselines.json", "system.json")


def silent(_stage: str, _done: int, _total: int) -> None:
    """Shows no progress."""


@dataclass(frozen=True, slots=True)
class Source:
    """A registered version with its model and the sides of its data set, as at its training."""

    version: Version
    model: TabularModel
    sides: Sides


@dataclass(frozen=True, slots=True)
class Compressed:
    """The version that was made, whether it may be released, and the figures behind that."""

    version: Version
    passed: bool
    reason: str
    table: Table


def compress(
    registry: Registry, tables: Tables, version: Version, steps: Sequence[Step], bound: Bound,
    *, at: int, code: str, threads: int = 1, timed: int = 500, progress: Progress = silent,
) -> Compressed:  # fmt: skip
    """Apply ``steps`` to ``version`` one after another, compare, register the outcome and record the gate's decision about it.

    All is done as the version's own declaration says. Rows that were held back at its training judge: the paired interval of the loss, by
    days, must lie below ``bound``. A version that loses more is registered too, and recorded as refused. With one thread the same call
    registers the same bits. ``timed`` rows are asked one by one; ``progress`` is told stages with how much of each is done.

    Raises:
        DeclarationError: there is no step, the measure is not one of the system's task, or a function of its declaration has changed.
        RegistryError: the version cannot be read, or a teacher has other features.
        TrainingError: the version was refused or is itself made from another, its data set can no longer be built, or a step does
            not suit it.
    """
    system = System.from_json(registry.artifact(version, "system.json").decode())
    _check(system, registry, version, steps, bound)
    source = open_version(system, registry, tables, version)
    teachers = {name: _teacher(system, registry, registry.resolve(system.name, name), source) for name in beside(steps)}
    started = time.perf_counter()
    model, spec = _stepped(system, source, steps, teachers, threads, progress)
    seconds = round(time.perf_counter() - started, 3)
    progress("Measuring", 0, 1)
    table = _table(source, model, bound, timed)
    progress("Measuring", 1, 1)
    artifacts = {**model.to_artifacts(), **{name: registry.artifact(version, name) for name in UNCHANGED}}
    told = values_of(model.predict(source.sides.test.columns), source.sides.test.label, system.model.task)
    body = replace(
        ModelManifest.of(version),
        parameters={"model": type(spec).__name__, **asdict(spec)},
        metrics={"rows": len(source.sides.test), **told},
        seed=spec.seed,
        seconds=seconds,
        bytes=sum(map(len, artifacts.values())),
        latency={"p50": table.compressed.p50, "p99": table.compressed.p99},
        code=code,
        environment=dependencies(),
        card="",
        note="",
        made_from=version.id,
        compression={"steps": [to_dict(step) for step in steps], "table": table.to_dict()},
    )
    made = registry.register("model", system.name, body.to_dict(), artifacts, at=at)
    reason = f"{table.smaller:.2f} times smaller than {version.id}: {str_of(table.loss)}"
    action = "gate_passed" if table.loss.holds else "gate_refused"
    registry.decide(system.name, action, made.id, at=at, by="gate", reason=reason, evidence=table.to_dict())
    return Compressed(made, table.loss.holds, reason, table)


def open_version(system: System, registry: Registry, tables: Tables, version: Version) -> Source:
    """A version with its model, and its data set built again.

    Raises:
        RegistryError: it cannot be read.
        TrainingError: the sources no longer hold what it was trained on.
    """
    model = load_model(system, registry, version)
    recorded = registry.version(ModelManifest.of(version).dataset).manifest
    dataset = DatasetBuilder(system, tables).build(recorded["from"], recorded["until"])
    if values(dataset.manifest) != values(recorded):
        raise TrainingError(
            f"Version '{version.id}': its data set can no longer be built, for sources or labels have changed since. "
            "Train a new version and compress that."
        )
    return Source(version, model, split(system, dataset))


def load_model(system: System, registry: Registry, version: Version) -> TabularModel:
    """The model of a version.

    Raises:
        RegistryError: it cannot be read, or was trained with other definitions of features.
    """
    if version.manifest["features"] != system.feature_hashes:
        raise RegistryError(
            f"Version '{version.id}' was trained with other definitions of features than '{system.name}' has now. Train again."
        )
    return TabularModel.from_artifacts({name: registry.artifact(version, name) for name in version.artifacts})


def _teacher(system: System, registry: Registry, version: Version, source: Source) -> TabularModel:
    """A further teacher, unless it has learned from what judges the student."""
    until = registry.version(ModelManifest.of(version).dataset).manifest["until"]
    if until > source.sides.test.manifest["until"]:
        raise TrainingError(
            f"Version '{version.id}' was trained on newer rows than '{source.version.id}', some of which are held out to judge. "
            "Let an older version teach, or compress the newer one."
        )
    return load_model(system, registry, version)


def _check(system: System, registry: Registry, version: Version, steps: Sequence[Step], bound: Bound) -> None:
    """Losses must not add up unseen, and no version gets past a gate that refused it."""
    if not steps or bound.kind != system.model.task:
        raise DeclarationError(
            f"System '{system.name}': {len(steps)} steps, and '{bound.metric}' is for {bound.kind}. "
            f"Give at least one step, and a measure for {system.model.task}."
        )
    before = ModelManifest.of(version).made_from
    if before:
        raise TrainingError(f"Version '{version.id}' was itself made from {before}. Compress that one, with the steps of both.")
    judged = [one.action for one in registry.decisions(system.name) if one.version == version.id and one.action.startswith("gate_")]
    if judged and judged[-1] == "gate_refused":
        raise TrainingError(f"Version '{version.id}' was refused by the gate. Compress one that passed.")


def _stepped(
    system: System, source: Source, steps: Sequence[Step], teachers: Mapping[str, TabularModel], threads: int, progress: Progress
) -> tuple[TabularModel, Model]:
    learned, held_out = (Examples(part.columns, part.label) for part in (source.sides.train, source.sides.validation))
    model, spec = source.model, system.model
    for number, step in enumerate(steps, 1):
        advance = partial(progress, f"{type(step).__name__} ({number} of {len(steps)})")
        advance(0, 1)
        model, spec = applied(step, model, Material(spec, learned, held_out, teachers, threads, advance))
        advance(1, 1)
    return model, spec


def _table(source: Source, model: TabularModel, bound: Bound, timed: int) -> Table:
    rows = source.sides.test
    asked = rows.take(np.arange(len(rows)) < timed)
    original, smaller = (_side(one, asked, rows) for one in (source.model, model))
    return side_by_side(original, smaller, rows.label, bound, rows=len(asked), blocks=rows.as_of // DAY)


def _side(model: TabularModel, asked: Dataset, rows: Dataset) -> Side:
    columns = [asked.columns[name].tolist() for name in model.encoder.names]
    one_by_one: list[list[Any]] = [[None if value != value else value for value in row] for row in zip(*columns, strict=True)]
    size = sum(map(len, model.to_artifacts().values()))
    return Side(size, lambda number: model.predict_row(one_by_one[number]), lambda: model.predict(rows.columns))
