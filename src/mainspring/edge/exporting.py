"""From a registered version to a file or folder that answers without a server, held against the service's own code before it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.edge import browser, python_file
from mainspring.edge.document import document, functions_of, plain, predictors
from mainspring.edge.document import tables as as_tables
from mainspring.edge.held import Held
from mainspring.edge.release import release
from mainspring.edge.samples import samples
from mainspring.errors import StorageError
from mainspring.model_registry import Registry, Version
from mainspring.model_registry.registry import signing_key
from mainspring.models.tabular import TabularModel
from mainspring.spec import System
from mainspring.storage.durable import replacing
from mainspring.storage.tables import Tables
from mainspring.training.dataset import Dataset
from mainspring.training.exporting import Exported
from mainspring.training.versions import load_dataset, load_model, recorded

COMPARED_ROWS = 1_000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was written of a ``version``: ``files`` by name, the ``entry`` among them, the features that are ``given``, and the figures."""

    version: str
    entry: str
    files: Mapping[str, bytes]
    given: tuple[str, ...]
    held: Held

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(map(len, self.files.values()))


def embed(
    system: System,
    registry: Registry,
    tables: Tables,
    version: Version,
    target: str,
    *,
    given: Collection[str] = (),
    runtime: Path | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """A version for the target ``python`` or ``browser``, its answers compared on up to 1,000 of the newest rows of its data set.

    ``given`` names functions whose values the caller has; ``runtime`` is a folder with ONNX Runtime Web, which else npm fetches.

    Raises:
        RegistryError: the version cannot be read, or was trained with other definitions of features.
        ExportError: something in it has no such form, or an answer is further off than the target's tolerance.
    """
    model = load_model(system, registry, version)
    written = document(system, version.id, model, json.loads(registry.artifact(version, "baselines.json")), given)
    rows = load_dataset(system, tables, recorded(registry, version), progress)
    newest = rows.take(np.arange(len(rows)) >= len(rows) - COMPARED_ROWS)
    made = _python if target == "python" else browser.made
    files, found = made(system, model, plain(written), newest, runtime)
    return Embedded(version.id, next(iter(files)), files, tuple(one["name"] for one in written["given"]), found)


def as_files(registry: Registry, system: System, version: Version, exported: Exported, given: Collection[str] = ()) -> Mapping[str, bytes]:
    """An exported ONNX model, and beside it as JSON all that is done before and after it.

    Raises:
        ExportError: ``given`` names what is no function of the system.
    """
    model = load_model(system, registry, version)
    written = plain(document(system, version.id, model, json.loads(registry.artifact(version, "baselines.json")), given))
    return {f"{system.name}.onnx": exported.file, f"{system.name}.json": json.dumps(written, indent=1).encode()}


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with replacing(folder / name) as file:
                file.write(data)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}. Name a folder that can be.") from error


def _python(
    system: System, model: TabularModel, written: dict[str, Any], rows: Dataset, _: Path | None
) -> tuple[dict[str, bytes], Held]:  # fmt: skip
    parts = predictors(model)
    whole = {**written, **{name: None if one is None else as_tables(one) for name, one in parts.items()}}
    about = f"{system.name}: {system.question} {written['version']}, exported by mainspring; it needs Python 3.11 and NumPy."
    text = python_file.python_file(whole, functions_of(system, written), about)
    asked, x = samples(system, model, written, rows), model.encoder.transform(rows.columns)
    found = python_file.hold(text, written["label"], asked, model.predictor, x, python_file.tolerance_of(whole["model"]))
    name, file = f"{system.name}.py", text.encode()
    return {name: file, f"{system.name}.release.json": release(written["version"], name, file, asked, signing_key())}, found
