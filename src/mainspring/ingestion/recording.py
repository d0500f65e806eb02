"""Recordings: data sets as they would have arrived, for replaying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mainspring.clock import format_instant
from mainspring.errors import DataError
from mainspring.spec import Source

if TYPE_CHECKING:
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

    def within(self, sources: Sequence[Source], since: int | None = None, until: int | None = None) -> Recording:
        """The part from the instant ``since`` to the instant ``until``; a source of kind table keeps all its rows.

        Raises:
            DataError: no history or no replay would be left.
        """
        import pyarrow.compute as pc

        if since is not None and since >= self.history_until:
            raise DataError(f"No history would be left: the replay begins at {format_instant(self.history_until)}. Give an earlier start.")
        if until is not None and until <= self.history_until:
            raise DataError(f"Nothing would be replayed: the replay begins at {format_instant(self.history_until)}. Give a later end.")
        tables = dict(self.tables)
        for source in sources:
            if since is not None and source.kind == "event":
                table = tables[source.name]
                tables[source.name] = table.filter(pc.greater_equal(table.column(source.event_time), since))
        return replace(self, tables=tables, end=self.end if until is None else until)
