"""From a registered version to a smaller one: made, measured beside it, judged, and registered with what it was made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mainspring.clock import DAY
from mainspring.errors import DeclarationError, TrainingError
from mainspring.model_registry import ModelManifest, Registry, Version, refusal
from mainspring.model_registry.manifest import dependencies
from mainspring.models.tabular import TabularModel
from mainspring.spec import Model, System
from mainspring.storage.tables import Tables
from mainspring.training.compression.measure import Bound, Side, Table, side_by_side, str_of, values_of
from mainspring.training.compression.steps import Material, Step, applied, beside, to_dict
from mainspring.training.dataset import Dataset
from mainspring.training.examples import Examples
from mainspring.training.reproduce import MADE_FROM, complete, values
from mainspring.training.tracking.running import Running
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import Sides, split
from mainspring.training.versions import load_dataset, load_model, recorded

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
    *, at: int, code: str, threads: int = 1, timed: int = 500, tracker: Tracker | None = None, progress: Progress = silent,
) -> Compressed:  # fmt: skip
    """Apply ``steps`` to ``version`` one after another, compare, register the outcome and record the gate's decision about it.

    All is done as the version's own declaration says. Rows that were held back at its training judge: the paired interval of the loss, by
    days, must lie below ``bound``. A version that loses more is registered too, and recorded as refused. With one thread the same call
    registers the same bits. ``timed`` rows are asked one by one; ``tracker`` records the call as a run; ``progress`` is told stages with
    how much of each is done.

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
    with nullcontext() if tracker is None else _begin(tracker, source, recorded(registry, version), steps, bound, threads) as run:
        started = time.perf_counter()
        model, spec = _stepped(system, source, steps, teachers, threads, run, progress)
        seconds = round(time.perf_counter() - started, 3)
        progress("Measuring", 0, 1)
        table = _table(source, model, bound, timed)
        progress("Measuring", 1, 1)
        body = {"seconds": seconds, "code": code, "compression": {"steps": [to_dict(step) for step in steps], "table": table.to_dict()}}
        made = _register(system, registry, source, model, spec, table, body, at)
        reason = f"{table.smaller:.2f} times smaller than {version.id}: {str_of(table.loss)}"
        if run is not None:
            _complete(run, made, table, reason)
    action = "gate_passed" if table.loss.holds else "gate_refused"
    registry.decide(system.name, action, made.id, at=at, by="gate", reason=reason, evidence=table.to_dict())
    return Compressed(made, table.loss.holds, reason, table)


def open_version(system: System, registry: Registry, tables: Tables, version: Version) -> Source:
    """A version with its model and its data set.

    Raises:
        RegistryError: it cannot be read.
        TrainingError: the sources no longer hold what it was trained on.
    """
    model, manifest = load_model(system, registry, version), recorded(registry, version)
    dataset = load_dataset(system, tables, manifest)
    if values(dataset.manifest) != values(manifest):
        raise TrainingError(
            f"Version '{version.id}': its data set can no longer be built, for sources or labels have changed since. "
            "Train a new version and compress that."
        )
    return Source(version, model, split(system, dataset))


def _begin(
    tracker: Tracker, source: Source, data: Mapping[str, Any], steps: Sequence[Step], bound: Bound, threads: int
) -> Running:  # fmt: skip
    """Start a run with what went in; its data set is that of the version that is made smaller."""
    version = source.version
    parameters = {MADE_FROM: version.id, "steps": [to_dict(step) for step in steps], "bound": asdict(bound), "threads": threads}
    return tracker.start(version.name, parameters=parameters, data=dict(data), seed=ModelManifest.of(version).seed)


def _complete(run: Running, made: Version, table: Table, reason: str) -> None:
    """Record which version a run has made, and both sides' figures."""
    run.metrics({"smaller": table.smaller, "lost": table.loss.lost})
    for name, side in (("original", table.original), ("compressed", table.compressed)):
        run.metrics({f"{name}/{figure}": value for figure, value in asdict(side).items()})
    run.note({"gate": f"{'passed' if table.loss.holds else 'refused'}: {reason}"})
    complete(run, made, made.manifest["metrics"])


def _register(
    system: System, registry: Registry, source: Source, model: TabularModel, spec: Model, table: Table, body: Mapping[str, Any], at: int
) -> Version:
    """The smaller model as a version, with the data set, features and declaration of the one that it was made from."""
    version, test = source.version, source.sides.test
    artifacts = {**model.to_artifacts(), **{name: registry.artifact(version, name) for name in UNCHANGED}}
    told = values_of(model.predict(test.columns), test.label, system.model.task)
    manifest = replace(
        ModelManifest.of(version),
        parameters={"model": type(spec).__name__, **asdict(spec)},
        metrics={"rows": len(test), **told},
        seed=spec.seed,
        bytes=sum(map(len, artifacts.values())),
        latency={"p50": table.compressed.p50, "p99": table.compressed.p99},
        environment=dependencies(),
        card="",
        note="",
        made_from=version.id,
        **body,
    )
    return registry.register("model", system.name, manifest.to_dict(), artifacts, at=at)


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
    if refusal(registry.decisions(system.name), version.id) is not None:
        raise TrainingError(f"Version '{version.id}' was refused by the gate. Compress one that passed.")


def _stepped(
    system: System, source: Source, steps: Sequence[Step], teachers: Mapping[str, TabularModel], threads: int, run: Running | None,
    progress: Progress,
) -> tuple[TabularModel, Model]:  # fmt: skip
    """The model after all steps and the declaration of its shape; each step's bytes and seconds go to the run."""
    learned, held_out = (Examples(part.columns, part.label) for part in (source.sides.train, source.sides.validation))
    model, spec = source.model, system.model
    for number, step in enumerate(steps, 1):
        advance, started = partial(progress, f"{type(step).__name__} ({number} of {len(steps)})"), time.perf_counter()
        advance(0, 1)
        model, spec = applied(step, model, Material(spec, learned, held_out, teachers, threads, advance))
        advance(1, 1)
        if run is not None:
            run.step(number, {"bytes": _size(model), "seconds": time.perf_counter() - started})
    return model, spec


def _table(source: Source, model: TabularModel, bound: Bound, timed: int) -> Table:
    rows = source.sides.test
    asked = rows.take(np.arange(len(rows)) < timed)
    original, smaller = (_side(one, asked, rows) for one in (source.model, model))
    return side_by_side(original, smaller, rows.label, bound, rows=len(asked), blocks=rows.as_of // DAY)


def _side(model: TabularModel, asked: Dataset, rows: Dataset) -> Side:
    columns = [asked.columns[name].tolist() for name in model.encoder.names]
    one_by_one: list[list[Any]] = [[None if value != value else value for value in row] for row in zip(*columns, strict=True)]
    return Side(_size(model), lambda number: model.predict_row(one_by_one[number]), lambda: model.predict(rows.columns))


def _size(model: TabularModel) -> int:
    return sum(map(len, model.to_artifacts().values()))
