"""Ingestion: a table or JSON objects of a source through its contract into the event log."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.errors import DataError, did_you_mean
from mainspring.ingestion.contract import Checked, Contract
from mainspring.ingestion.quarantine import Quarantine
from mainspring.spec import Source

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.storage.log import Log

BATCH_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the rows: every accepted one lies in the log before ``offset``; rejected ones are counted by reason."""

    offset: int
    accepted: int
    rejected: dict[str, int]


class Ingestor:
    """Checks facts of the sources, appends what fits to the log and quarantines what does not."""

    def __init__(self, log: Log, sources: Mapping[str, Source], quarantine: Quarantine) -> None:
        self._log = log
        self._quarantine = quarantine
        self._contracts = {name: Contract(source) for name, source in sources.items()}

    def ingest(self, source: str, table: pa.Table, at: int, progress: Callable[[int, int], None] | None = None) -> Ingested:
        """Ingest a table in batches of 100,000 rows; ``at`` is now. ``progress`` gets the rows done and the rows in all.

        Raises:
            DataError: the source is not known, or the table's columns cannot be its columns; then nothing was appended.
            StorageError: the log or the quarantine cannot be written; the batches before are in the log.
        """
        contract = self._contract(source)
        accepted, reasons = 0, Counter[str]()
        for start in range(0, max(table.num_rows, 1), BATCH_ROWS):
            batch = table.slice(start, BATCH_ROWS)
            checked = contract.check_batch(batch)
            accepted += self._keep(source, checked, start, at, reasons)
            if progress is not None:
                progress(start + batch.num_rows, table.num_rows)
        return Ingested(self._log.end, accepted, dict(reasons))

    def ingest_rows(self, source: str, rows: Sequence[Any], at: int) -> Ingested:
        """Ingest JSON objects, each on its own: a bad one is quarantined and stops no other.

        Raises:
            DataError: the source is not known.
            StorageError: the log or the quarantine cannot be written.
        """
        reasons = Counter[str]()
        accepted = self._keep(source, self._contract(source).check_rows(rows), 0, at, reasons)
        return Ingested(self._log.end, accepted, dict(reasons))

    def _keep(self, source: str, checked: Checked, start: int, at: int, reasons: Counter[str]) -> int:
        rejected = [dataclasses.replace(one, row=one.row + start) for one in checked.rejected]
        reasons.update(one.reason for one in rejected)
        accepted: int = checked.accepted.num_rows
        if accepted:
            self._log.append(source, checked.accepted)
        self._quarantine.add(source, rejected, at)
        return accepted

    def _contract(self, source: str) -> Contract:
        if source not in self._contracts:
            raise DataError(f"Ingestion: there is no source '{source}'.{did_you_mean(source, self._contracts)}")
        return self._contracts[source]
