"""The way out of quarantine: rows are checked again, and those that now hold to their contract go into the event log, once."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.ingestion.files import read_line
from mainspring.ingestion.ingest import BATCH_ROWS, Ingestor
from mainspring.ingestion.quarantine import Pending, Quarantine, Quarantined
from mainspring.schema import EVENT_ID

if TYPE_CHECKING:
    from mainspring.storage.log import Log

Mend = Callable[[Quarantined], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of the rows: how many are in the event log now, and how many stay, by reason."""

    accepted: int
    rejected: dict[str, int]


def as_it_came(row: Quarantined) -> Mapping[str, Any]:
    """A row's values unchanged: what was mended is the declaration."""
    return row.values


def retry(
    ingestor: Ingestor,
    log: Log,
    quarantine: Quarantine,
    source: str,
    at: int,
    mend: Mend = as_it_came,
    wanted: Callable[[Quarantined], bool] = lambda _: True,
) -> Retried:
    """Check the ``wanted`` rows of a source again, as ``mend`` leaves them; ``at`` is now.

    What is expected of batches is not asked again: rows of a refused batch come out. Killed at any point, the next retry finds in the
    log what was appended already, and every row gets in once.

    Raises:
        DataError: the source is not known.
        StorageError: the log or the quarantine cannot be read or written; the rows stay where they are.
    """
    ingestor.contract(source)
    accepted, reasons = 0, Counter[str]()
    with quarantine.retrying():
        _take_up(log, quarantine, source)
        rows = (row for row in quarantine.read(source) if wanted(row))
        while part := list(itertools.islice(rows, BATCH_ROWS)):
            checked = ingestor.check(source, [_values(mend(row)) for row in part], at)
            kept = {part[one.row].line: one.reason for one in checked.rejected}
            lines = [row.line for row in part if row.line not in kept]
            if lines:
                event_ids = tuple(checked.accepted.column(EVENT_ID).to_pylist())
                quarantine.begin(source, Pending(tuple(lines), event_ids, log.end))
                log.append(source, checked.accepted)
            changed = {row.line: kept[row.line] for row in part if kept.get(row.line, row.reason) != row.reason}
            if lines or changed:
                quarantine.settle(source, lines, changed)
            accepted += len(lines)
            reasons.update(kept.values())
    return Retried(accepted, dict(reasons))


def _take_up(log: Log, quarantine: Quarantine, source: str) -> None:
    """Settle what a killed retry left: accepted if its facts are in the log, else still here."""
    pending = quarantine.pending(source)
    if pending is None:
        return
    missing = set(pending.event_ids)
    for frame in log.read(pending.offset) if pending.offset < log.end else ():
        if frame.source == source:
            missing -= set(frame.batch.column(EVENT_ID).to_pylist())
    quarantine.settle(source, () if missing else pending.lines, {})


def _values(values: Mapping[str, Any]) -> Any:
    """The values, or what came instead of an object: text is a line of a file, read again."""
    if values.keys() != {""}:
        return values
    return read_line(values[""].encode(errors="surrogatepass")) if isinstance(values[""], str) else values[""]
