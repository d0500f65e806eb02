"""A registered version evaluated again: on the rows that were held out of its training, or on those that have come since."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.clock import format_instant
from mainspring.errors import TrainingError
from mainspring.evaluation.baselines import Rows, Truth
from mainspring.evaluation.of_model import Candidate, evaluate_model
from mainspring.evaluation.record import Evaluation
from mainspring.model_registry import Registry, Version
from mainspring.schema import KNOWN_TIME
from mainspring.spec import System
from mainspring.storage.tables import Tables
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.train import MIN_ROWS, held_out, latency, load_baselines, split
from mainspring.training.versions import load_dataset, load_model, recorded


def evaluate_version(
    system: System, registry: Registry, tables: Tables, version: Version, *, against: Version | None = None, newest: bool = False
) -> Evaluation:
    """Evaluate a version, and ``against`` another one on the same rows, none of which either was fitted on.

    They are the holdout of the later of the two training sets, or with ``newest`` all rows after it whose label has come.

    Raises:
        RegistryError: a version does not load, or does not say what it was trained on.
        TrainingError: fewer than 200 such rows have a label.
    """
    chosen = [version] if against is None else [version, against]
    sets = [recorded(registry, one) for one in chosen]
    later = max(sets, key=lambda one: int(one["until"]))
    if newest:
        dataset = DatasetBuilder(system, tables).build(later["from"], _known_until(system, tables))
        held, how = _since(system, dataset, int(later["until"])), {"kind": f"rows after {format_instant(later['until'])[:16]}"}
    else:
        dataset = load_dataset(system, tables, later)
        held, how = split(system, dataset).test, held_out(system)
    model = load_model(system, registry, version)
    return evaluate_model(
        system,
        Candidate(model, load_baselines(system, registry, version)),
        Rows(held.columns, held.as_of),
        held.label,
        Truth(dataset.columns, dataset.label, dataset.label_known_at),
        others={} if against is None else {against.id: load_model(system, registry, against)},
        split=how,
        latency=latency(model, held),
    )


def _since(system: System, dataset: Dataset, until: int) -> Dataset:
    held = dataset.take(dataset.as_of >= until)
    if len(held) < MIN_ROWS:
        raise TrainingError(
            f"System '{system.name}': {len(held)} labelled rows after {format_instant(until)[:16]}, {MIN_ROWS} are needed. "
            "Ingest more, or evaluate on the holdout."
        )
    return held


def _known_until(system: System, tables: Tables) -> int:
    """The instant up to which labels are known."""
    files = tables.files(system.label.source.name)
    newest = [pc.max(pq.read_table(file, columns=[KNOWN_TIME]).column(0)).as_py() for file in files]
    if not newest:
        raise TrainingError(f"System '{system.name}': source '{system.label.source.name}' has no facts. Ingest some first.")
    return int(np.max(newest)) + 1
