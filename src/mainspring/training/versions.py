"""A registered version, opened again: its model, and the data set that it was fitted to and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mainspring.errors import RegistryError
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.models.tabular import TabularModel
from mainspring.spec import System
from mainspring.storage.tables import Tables
from mainspring.training.dataset import Dataset, DatasetBuilder, Progress, load
from mainspring.training.sets import Sets


def load_model(system: System, registry: Registry, version: Version) -> TabularModel:
    """The model of a version of ``system``.

    Raises:
        RegistryError: it cannot be read, or was trained with other definitions of features.
    """
    then, now = ModelManifest.of(version).features, system.feature_hashes
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if changed:
        raise RegistryError(f"Version '{version.id}' was trained with other definitions of features: {', '.join(changed)}. Train again.")
    artifacts = {name: registry.artifact(version, name) for name in version.artifacts}
    try:
        return TabularModel.from_artifacts(artifacts)
    except (KeyError, ValueError) as error:
        raise RegistryError(f"Version '{version.id}': its files are none of a model ({error}). Train again.") from error


def recorded(registry: Registry, version: Version) -> Mapping[str, Any]:
    """What the registry says of the data set of a version.

    Raises:
        RegistryError: the version names none.
    """
    named = ModelManifest.of(version).dataset
    if not named:
        raise RegistryError(f"Version '{version.id}' names no data set, so what it was fitted on is not known. Train it again.")
    return registry.version(named).manifest


def load_dataset(system: System, tables: Tables, manifest: Mapping[str, Any], progress: Progress | None = None) -> Dataset:
    """The data set of a `recorded` manifest: as it was where it is still on disk, else built anew from what is known by now.

    Raises:
        TrainingError: the sources hold no rows of it.
        StorageError: it is on disk, but damaged.
    """
    builder = DatasetBuilder(system, tables)
    sets = Sets(builder.place)
    if manifest.get("address") in sets.addresses():
        return load(sets, manifest["address"], system)
    return builder.build(manifest["from"], manifest["until"], progress)
