"""Recordings: data sets as they would have arrived, for replaying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Recording:
    """Rows per source, sorted by when they were known.

    Instants in ``tables`` are int64 microseconds UTC. What was known before ``history_until`` is history, the rest up to
    ``end`` is replayed; both are instants. ``notes`` counts what was left out or repaired on loading.
    """

    name: str
    tables: Mapping[str, pa.Table]
    history_until: int
    end: int
    notes: Mapping[str, int]
