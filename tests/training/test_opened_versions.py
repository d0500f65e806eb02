"""A registered version is opened again: with its own model, on the rows that it was fitted to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from delivery import NOW, build, system
from mainspring.errors import RegistryError
from mainspring.model_registry import Registry
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import DatasetBuilder
from mainspring.training.versions import load_dataset, load_model, recorded


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("versions") / "space")


@pytest.fixture
def registry(space: Workspace) -> Iterator[Registry]:
    opened = Registry(space.registry)
    yield opened
    opened.close()


def test_the_data_set_is_that_of_the_training_from_disk_or_built_again(space: Workspace, registry: Registry) -> None:
    tables, manifest = Tables(space.tables), recorded(registry, registry.version("model:delivery:1"))
    kept = load_dataset(system, tables, manifest)
    assert kept.hash == manifest["hash"]
    shutil.rmtree(DatasetBuilder(system, tables).place)
    steps: list[tuple[int, int]] = []
    built = load_dataset(system, tables, manifest, lambda done, total: steps.append((done, total)))
    assert steps
    assert built.manifest["address"] == manifest["address"]
    assert all(np.array_equal(built.columns[name], kept.columns[name]) for name in kept.columns if kept.columns[name].dtype != float)
    assert np.array_equal(built.label, kept.label)


def test_a_model_answers_as_when_it_was_registered(space: Workspace, registry: Registry) -> None:
    version = registry.version("model:delivery:1")
    model = load_model(system, registry, version)
    assert {name: registry.artifact(version, name) for name in model.to_artifacts()} == model.to_artifacts()


def test_what_cannot_be_opened_says_why(registry: Registry) -> None:
    version = registry.version("model:delivery:1")
    files = {name: registry.artifact(version, name) for name in version.artifacts}
    other = replace(system, features=[*system.features[:-1]])
    with pytest.raises(RegistryError, match=f"other definitions of features: {system.features[-1].name}. Train again"):
        load_model(other, registry, version)
    for broken in ({}, {**files, "model.json": b"{"}, {**files, "model.json": b"{}"}):
        foreign = registry.register("model", "delivery", version.manifest, broken, at=NOW)
        with pytest.raises(RegistryError, match=r"files are none of a model .* Train again"):
            load_model(system, registry, foreign)
    bare = registry.register("model", "delivery", {"features": {}}, {}, at=NOW)
    with pytest.raises(RegistryError, match="names no data set"):
        recorded(registry, bare)
