"""Versions in memory: loaded from the registry, checked against the declaration, and left out for a while when they fail."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from mainspring.breaker import Breaker
from mainspring.columns import Array
from mainspring.errors import RegistryError, ServingError
from mainspring.model_registry.records import Version
from mainspring.model_registry.registry import Registry
from mainspring.models.artifacts import Artifacts
from mainspring.models.baselines import LinearLine
from mainspring.models.large_tables import is_stripe
from mainspring.models.tabular import TabularModel
from mainspring.serving.features import FeatureRow
from mainspring.spec import LinearRule, System

Scores = tuple[float, float | None, float | None]
FAILURES = 5
"""So many times in a row a version may fail, or take longer than the whole answer may, before it is left out."""

_log = logging.getLogger(__name__)


def _breaker() -> Breaker:
    return Breaker(time.monotonic, random.Random(), FAILURES)


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version ready to answer. ``model`` is None when it could not be loaded; its ``rules`` may answer all the same.

    ``inputs`` takes the model's inputs from the values of all features. ``deadline`` is how many seconds the model may take.
    """

    id: str
    model: TabularModel | None
    rules: dict[str, tuple[int, LinearLine]]
    inputs: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    problem: str = ""
    deadline: float = float("inf")
    breaker: Breaker = field(default_factory=_breaker, compare=False)

    def predict(self, rows: Sequence[FeatureRow], columns: Mapping[str, Array] | None = None) -> list[Scores | ServingError]:
        """Score and interval of each feature row, in the label's unit, or why there is none.

        ``columns`` are the same values by feature, where they are at hand: the answers are the same, in less time.
        A model that fails or is late `FAILURES` times in a row is not asked for a while, then for one row.
        """
        if self.model is None:
            return [ServingError(f"Version {self.id} is not loaded: {self.problem}")] * len(rows)
        if not self.breaker.open:
            return self._timed(self.model, rows, columns)
        probed = self._timed(self.model, rows[:1]) if self.breaker.ready() else []
        why = ServingError(f"Version {self.id} failed or was late {FAILURES} times in a row and is left out for a while.")
        return [*probed, *[why] * (len(rows) - len(probed))]

    def _timed(
        self, model: TabularModel, rows: Sequence[FeatureRow], columns: Mapping[str, Array] | None = None
    ) -> list[Scores | ServingError]:
        began = self.breaker.now()
        try:
            scores = None if columns is None else model.predict_columns(columns)
            if scores is None:
                scores = model.predict_rows([self.inputs(row.values) for row in rows])
        except Exception as error:
            if len(rows) > 1:
                return [scores for row in rows for scores in self.predict([row])]
            _log.exception("%s failed", self.id)
            self.breaker.failed()
            return [ServingError(f"Version {self.id} failed: {type(error).__name__}: {error}")]
        if self.breaker.now() - began > self.deadline:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        return scores

    def reasons(self, features: FeatureRow, most: int) -> list[tuple[str, float]]:
        """The ``most`` features that moved the score most, with their effects, largest first."""
        if self.model is None:
            return []
        return self.model.reasons(self.inputs(features.values), most)

    def rule(self, name: str, rows: Sequence[FeatureRow]) -> list[Scores | ServingError]:
        """The answers of a declared rule, which has no interval."""
        if name not in self.rules:
            return [ServingError(f"Version {self.id} carries no rule '{name}'.")] * len(rows)
        position, line = self.rules[name]
        return [(line.predict_one(row.values[position]), None, None) for row in rows]


def load_system(registry: Registry, name: str | None = None) -> System:
    """The newest declaration in a registry, of the system ``name`` or of the only one.

    Raises:
        RegistryError: there is none.
        DeclarationError: a function that it names is gone or has other code.
    """
    names = registry.names("system") if name is None else [name]
    versions = registry.versions("system", names[-1]) if names else []
    if not versions:
        raise RegistryError("The registry declares no system. Run one first: mainspring run eta.")
    return System.from_json(registry.artifact(versions[-1], "system.json").decode())


def load(system: System, registry: Registry, version_id: str) -> LoadedVersion:
    """A version from the registry, asked once; model and rules are loaded independently of each other."""
    version = unloaded(system, version_id)
    try:
        return _warmed(replace(version, model=_model(system, registry, version)), len(system.features))
    except Exception as error:
        _log.warning("%s: %s cannot be loaded, its rules answer alone: %s", system.name, version_id, error)
        return replace(version, problem=str(error))


def unloaded(system: System, version_id: str, problem: str = "") -> LoadedVersion:
    """A version without its model and rules."""
    names = [feature.name for feature in system.features]
    inputs = _taking([names.index(feature.name) for feature in system.inputs], len(names))
    return LoadedVersion(version_id, None, {}, inputs, problem, system.policy.deadline_us / 1e6)


def _model(system: System, registry: Registry, loaded: LoadedVersion) -> TabularModel:
    """The version's model; puts its rules into ``loaded`` first."""
    names = [feature.name for feature in system.features]
    version = registry.version(loaded.id)
    fitted: dict[str, Any] = json.loads(registry.artifact(version, "baselines.json"))
    for baseline in system.baselines:
        if isinstance(baseline, LinearRule) and baseline.on in names:
            loaded.rules[baseline.name] = (names.index(baseline.on), LinearLine.from_dict(fitted[baseline.name]))
    trained = version.manifest["features"]
    if trained != system.feature_hashes:
        changed = sorted(name for name in {*trained, *system.feature_hashes} if trained.get(name) != system.feature_hashes.get(name))
        raise RegistryError(f"Version {loaded.id} was trained with other definitions of {', '.join(changed)}. Train again.")
    return TabularModel.from_artifacts(_artifacts(registry, version), registry.tables)


def _artifacts(registry: Registry, version: Version) -> Artifacts:
    """Every file read and verified now, but for large tables: their stripes are read one by one, by whoever holds them."""
    read = {name: registry.artifact(version, name) for name in version.artifacts if not is_stripe(name)}
    return Artifacts(version.artifacts, lambda name: read[name] if name in read else registry.artifact(version, name))


def _warmed(version: LoadedVersion, width: int) -> LoadedVersion:
    """The version after an answer of one row and one of two, which leave what libraries make when they are first asked."""
    nothing = FeatureRow((None,) * width, b"")
    for rows in ([nothing], [nothing, nothing]):
        with suppress(Exception):
            assert version.model is not None
            version.model.predict_rows([version.inputs(row.values) for row in rows])
    return version


def _taking(positions: Sequence[int], width: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if list(positions) == list(range(width)):
        return lambda values: values
    return itemgetter(*positions) if len(positions) > 1 else lambda values: tuple([values[position] for position in positions])
