"""From a training to its record, and from the record back to the same bits."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mainspring.errors import TrainingError
from mainspring.model_registry import Version
from mainspring.models.tabular import TabularModel
from mainspring.spec import System
from mainspring.storage.tables import Tables
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.tracking.environment import code_version, environment
from mainspring.training.tracking.running import Running
from mainspring.training.tracking.runs import Run, differences
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import CARD, EVALUATION, Start, fit, to_artifacts

_PASSING = {"hash", "log_position", "created_by"}
"""What a manifest says of when it was built, and not of its values."""
MADE_FROM = "made_from"
"""The parameter of a run that made a version smaller: which one."""
_START = "start/"
"""Before the names of the files of the model that a run went on from."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A training done again: ``artifacts`` of the fit by name with the recorded and the new SHA-256, ``differences`` in data, environment
    and code by dotted name with the recorded and the present value.
    """

    run: str
    artifacts: Mapping[str, tuple[str, str]]
    differences: Mapping[str, list[Any]]
    seconds: float

    @property
    def same(self) -> bool:
        """Whether every artifact has the recorded bits."""
        return all(recorded == now for recorded, now in self.artifacts.values())


def begin(
    tracker: Tracker,
    system: System,
    dataset: Dataset,
    *,
    threads: int,
    shuffle_labels: np.random.Generator | None,
    start: Start | None = None,
    note: str = "",
) -> Running:
    """Start the run of a `fit` with all that it takes to do it again; to be called before the generator is used."""
    shuffle = None if shuffle_labels is None else shuffle_labels.bit_generator.state
    run = tracker.start(
        system.name,
        parameters={
            **asdict(system.model),
            "threads": threads,
            "shuffle_labels": shuffle,
            "start": None if start is None else {"version": start.version, "until": start.until},
        },
        data={"hash": dataset.hash, **dataset.manifest},
        seed=system.model.seed,
    )
    run.artifact("system.json", system.to_json().encode())
    for name, data in {} if start is None else start.model.to_artifacts().items():
        run.artifact(f"{_START}{name}", data)
    if note:
        run.note({"note": note})
    return run


def complete(run: Running, version: Version, metrics: Mapping[str, Any]) -> None:
    """Record which version a run has made, the hashes of its files, and the figures on the held-out rows."""
    run.refer(version.artifacts)
    run.note({"version": version.id})
    run.metrics({f"validation/{name}": value for name, value in metrics.items() if isinstance(value, int | float)})


def reproduce(tracker: Tracker, run: Run, tables: Tables) -> Reproduction:
    """Build the run's data set anew, fit as it did, compare. The same machine, packages and data give the same bits.

    Raises:
        TrainingError: the record is not that of a finished training.
        DeclarationError: a function of its declaration is gone or has other code.
    """
    if MADE_FROM in run.parameters:
        raise TrainingError(
            f"Run '{run.id}' made {run.parameters[MADE_FROM]} smaller and is no training. Its steps are in its parameters: give them to "
            "mainspring models compress again, on one thread; the new version's files then have the same hashes."
        )
    if run.status != "finished" or "system.json" not in run.artifacts or "until" not in run.data:
        raise TrainingError(f"Run '{run.id}' is {run.status} and cannot be done again. Name a finished training.")
    started = time.perf_counter()
    system = System.from_json(tracker.artifact(run, "system.json").decode())
    dataset = DatasetBuilder(system, tables).build(run.data["from"], run.data["until"])
    shuffle_labels, start = _generator(run.parameters["shuffle_labels"]), _started(tracker, run)
    trained = fit(system, dataset, threads=run.parameters["threads"], shuffle_labels=shuffle_labels, start=start)
    made = {name: hashlib.sha256(data).hexdigest() for name, data in to_artifacts(system, trained).items()}
    recorded = {name: one for name, one in run.artifacts.items() if not name.startswith(_START) and name not in (CARD, EVALUATION)}
    artifacts = {name: (recorded.get(name, ""), made.get(name, "")) for name in sorted({*recorded, *made})}
    then = {"data": values(run.data), "environment": tracker.environment(run), "code": run.code}
    now = {"data": values(dataset.manifest), "environment": environment(), "code": dict(code_version())}
    return Reproduction(run.id, artifacts, differences({"then": then, "now": now}), time.perf_counter() - started)


def _started(tracker: Tracker, run: Run) -> Start | None:
    """The model that a run went on from, from the record."""
    if run.parameters["start"] is None:
        return None
    names = [name for name in run.artifacts if name.startswith(_START)]
    model = TabularModel.from_artifacts({name.removeprefix(_START): tracker.artifact(run, name) for name in names})
    return Start(run.parameters["start"]["version"], model, run.parameters["start"]["until"])


def values(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of a data set says of its values, and not of when it was built."""
    return {name: value for name, value in manifest.items() if name not in _PASSING}


def _generator(state: Mapping[str, Any] | None) -> np.random.Generator | None:
    if state is None:
        return None
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    return generator
