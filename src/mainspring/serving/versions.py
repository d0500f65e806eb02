"""Versions in memory: loaded from the registry once, checked against the declaration, and kept while they are live."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from mainspring.errors import MainspringError, RegistryError, ServingError
from mainspring.model_registry.registry import Registry
from mainspring.models.baselines import LinearLine
from mainspring.models.tabular import TabularModel
from mainspring.serving.features import FeatureRow
from mainspring.spec import LinearRule, System

Scores = tuple[float, float | None, float | None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version ready to answer. ``model`` is None when it could not be loaded; its ``rules`` may answer all the same.

    ``inputs`` takes the model's inputs from the values of all features.
    """

    id: str
    model: TabularModel | None
    rules: dict[str, tuple[int, LinearLine]]
    inputs: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    problem: str = ""

    def predict(self, rows: Sequence[FeatureRow]) -> list[Scores | ServingError]:
        """Score and interval of each feature row, in the label's unit, or why there is none."""
        if self.model is None:
            return [ServingError(f"Version {self.id} is not loaded: {self.problem}")] * len(rows)
        values = [self.inputs(row.values) for row in rows]
        try:
            return self.model.predict_rows(values)
        except Exception as error:
            if len(rows) > 1:
                return [scores for row in rows for scores in self.predict([row])]
            _log.exception("%s failed", self.id)
            return [ServingError(f"Version {self.id} failed: {type(error).__name__}: {error}")]

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


class Versions:
    """Cache of loaded versions of one System."""

    def __init__(self, system: System, registry: Registry) -> None:
        self._system = system
        self._registry = registry
        self._loaded: dict[str, LoadedVersion] = {}

    def get(self, version: str) -> LoadedVersion:
        """The version, loaded on first use; what cannot be loaded is remembered with the reason."""
        if version not in self._loaded:
            self._loaded[version] = load(self._system, self._registry, version)
        return self._loaded[version]

    def keep(self, versions: Sequence[str]) -> None:
        """Load these, so that the next request need not, and forget the others."""
        self._loaded = {version: self.get(version) for version in versions}


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
    """A version from the registry; model and rules are loaded independently of each other."""
    names = [feature.name for feature in system.features]
    inputs = _taking([names.index(feature.name) for feature in system.inputs], len(names))
    rules: dict[str, tuple[int, LinearLine]] = {}
    try:
        version = registry.version(version_id)
        fitted: dict[str, Any] = json.loads(registry.artifact(version, "baselines.json"))
        for baseline in system.baselines:
            if isinstance(baseline, LinearRule) and baseline.on in names:
                rules[baseline.name] = (names.index(baseline.on), LinearLine.from_dict(fitted[baseline.name]))
        trained = version.manifest["features"]
        if trained != system.feature_hashes:
            changed = sorted(name for name in {*trained, *system.feature_hashes} if trained.get(name) != system.feature_hashes.get(name))
            raise RegistryError(f"Version {version_id} was trained with other definitions of {', '.join(changed)}. Train again.")
        artifacts = {name: registry.artifact(version, name) for name in version.artifacts}
        return LoadedVersion(version_id, TabularModel.from_artifacts(artifacts), rules, inputs)
    except (MainspringError, KeyError, ValueError) as error:
        _log.warning("%s: %s cannot be loaded, its rules answer alone: %s", system.name, version_id, error)
        return LoadedVersion(version_id, None, rules, inputs, str(error))


def _taking(positions: Sequence[int], width: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if list(positions) == list(range(width)):
        return lambda values: values
    return itemgetter(*positions) if len(positions) > 1 else lambda values: tuple([values[position] for position in positions])
