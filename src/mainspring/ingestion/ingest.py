"""Ingestion: a table or JSON objects of a source through its contract into the event log."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.errors import DataError, did_you_mean
from mainspring.ingestion.contract import Checked, Contract
from mainspring.ingestion.quarantine import Quarantine
from mainspring.spec import Source

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.ingestion.expectations import Expectations, Violation
    from mainspring.storage.log import Log

BATCH_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the rows: every accepted one lies in the log before ``offset``; rejected ones are counted by reason.

    ``violations`` are the expectations that the batch as a whole broke.
    """

    offset: int
    accepted: int
    rejected: dict[str, int]
    violations: tuple[Violation, ...] = ()


class Ingestor:
    """Checks facts of the sources, appends what fits to the log and quarantines what does not."""

    def __init__(self, log: Log, sources: Mapping[str, Source], quarantine: Quarantine) -> None:
        self._log = log
        self._quarantine = quarantine
        self._contracts = {name: Contract(source) for name, source in sources.items()}
        self._expectations: dict[str, Expectations] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources."""
        return tuple(self._contracts)

    def contract(self, source: str) -> Contract:
        """The contract of a source.

        Raises:
            DataError: the source is not known.
        """
        if source not in self._contracts:
            raise DataError(f"Ingestion: there is no source '{source}'.{did_you_mean(source, self._contracts)}")
        return self._contracts[source]

    def ingest(self, source: str, table: pa.Table, at: int, progress: Callable[[int, int], None] | None = None) -> Ingested:
        """Ingest a table as one batch of its source; ``at`` is now. ``progress`` gets the rows done and the rows in all.

        It is checked and appended 100,000 rows at a time; where something is expected of the whole batch, nothing is appended before
        all of it is checked.

        Raises:
            DataError: the source is not known, or the table's columns cannot be its columns; then nothing was appended.
            StorageError: the log or the quarantine cannot be written; the rows before are in the log.
        """
        contract = self.contract(source)

        def checked() -> Iterator[Checked]:
            for start in range(0, max(table.num_rows, 1), BATCH_ROWS):
                part = table.slice(start, BATCH_ROWS)
                yield contract.check_batch(part)
                if progress is not None:
                    progress(start + part.num_rows, table.num_rows)

        return self._take_in(source, checked(), at, whole=True)

    def ingest_rows(self, source: str, rows: Iterable[Any], at: int, *, whole: bool = False) -> Ingested:
        """Ingest JSON objects, each on its own: a bad one is quarantined and stops no other.

        With ``whole`` they are one batch of their source and held to what is expected of one; else they are facts of a stream.

        Raises:
            DataError: the source is not known.
            StorageError: the log or the quarantine cannot be written.
        """
        contract = self.contract(source)
        return self._take_in(source, map(contract.check_rows, _parts(rows)), at, whole=whole)

    def check(self, source: str, rows: Sequence[Any], at: int) -> Checked:
        """What would become of facts of a stream that arrive at ``at``; nothing is appended or quarantined.

        Raises:
            DataError: the source is not known.
        """
        checked = self.contract(source).check_rows(rows)
        return self._expected(source).hold([checked], at, whole=False)[0][0]

    def _take_in(self, source: str, parts: Iterable[Checked], at: int, *, whole: bool) -> Ingested:
        expectations = self._expected(source)
        reasons = Counter[str]()
        accepted = start = 0
        violations: tuple[Violation, ...] = ()
        for group in [list(parts)] if expectations.need_all else ([part] for part in parts):
            held, found = expectations.hold(group, at, whole=whole)
            violations += found
            for checked in held:
                accepted += self._keep(source, checked, start, at, reasons)
                start += checked.accepted.num_rows + len(checked.rejected)
        return Ingested(self._log.end, accepted, dict(reasons), violations)

    def _keep(self, source: str, checked: Checked, start: int, at: int, reasons: Counter[str]) -> int:
        rejected = [dataclasses.replace(one, row=one.row + start) for one in checked.rejected]
        reasons.update(one.reason for one in rejected)
        accepted: int = checked.accepted.num_rows
        if accepted:
            self._log.append(source, checked.accepted)
        self._quarantine.add(source, rejected, at)
        return accepted

    def _expected(self, source: str) -> Expectations:
        if source not in self._expectations:
            from mainspring.ingestion.expectations import Expectations

            self._expectations[source] = Expectations(self.contract(source).source, self._log)
        return self._expectations[source]


def _parts(rows: Iterable[Any]) -> Iterator[list[Any]]:
    rows = iter(rows)
    part = list(itertools.islice(rows, BATCH_ROWS))
    yield part
    while part := list(itertools.islice(rows, BATCH_ROWS)):
        yield part
