"""From a registered version to a file that other runtimes read, held against the version on rows of its own data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mainspring.errors import ExportError
from mainspring.model_registry import Registry, Version
from mainspring.models.export import annotated, as_onnx
from mainspring.models.parity import Parity
from mainspring.models.protocol import Floats, Predictor
from mainspring.spec import System
from mainspring.storage.tables import Tables
from mainspring.training.versions import load_dataset, load_model, recorded

COMPARED_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Exported:
    """The ONNX ``file`` of a ``version``, made from a model of ``kind``, how far it is from that, and microseconds an answer takes."""

    version: str
    kind: str
    file: bytes
    columns: tuple[str, ...]
    parity: Parity
    p50: float
    p99: float


def export(
    system: System,
    registry: Registry,
    tables: Tables,
    version: Version,
    *,
    decide_at: Sequence[float] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """The model of ``version`` as one ONNX file, compared on up to 2,000 of the newest rows of its data set.

    The file answers for the encoded matrix, before offset and calibration; its metadata hold ``model.json``, which says how values are
    encoded and what is made of the answer. ``decide_at`` are thresholds: no compared row may be decided otherwise.

    Raises:
        RegistryError: the version cannot be read, or was trained with other definitions of features.
        TrainingError: the sources hold no rows of its data set.
        ExportError: there is no ONNX form of it, as of one that reads free text, or the file is not at par.
    """
    model = load_model(system, registry, version)
    if model.encoder.texts:
        raise ExportError(f"Version '{version.id}' reads free text, which has no ONNX form. Serve it as it is.")
    rows = load_dataset(system, tables, recorded(registry, version), progress)
    newest = rows.take(np.arange(len(rows)) >= len(rows) - COMPARED_ROWS)
    x = model.encoder.transform(newest.columns)
    exported, found = as_onnx(model, x, decide_at=decide_at)
    artifacts = model.to_artifacts()
    file = annotated(exported.predictor.to_artifacts()["model.onnx"], {"model.json": artifacts["model.json"].decode()})
    return Exported(version.id, model.kind, file, model.encoder.names, found, *_microseconds(exported.predictor, x))


def _microseconds(predictor: Predictor, x: Floats) -> tuple[float, float]:
    """Median and 99th percentile of answering a row."""
    taken = np.empty(len(x))
    for place, row in enumerate(x):
        begin = time.perf_counter()
        predictor.predict_row(row)
        taken[place] = (time.perf_counter() - begin) * 1e6
    return float(np.quantile(taken, 0.5)), float(np.quantile(taken, 0.99))
