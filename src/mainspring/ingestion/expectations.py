"""A source's expectations held against facts that passed its contract: broken by a fact, it is set apart; by a batch, it is reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.clock import format_instant, parse_duration
from mainspring.ingestion.contract import Checked, Rejected, as_json
from mainspring.ingestion.event_keys import EventKeys
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME
from mainspring.spec import Ahead, Fixed, Fresh, Nulls, Rows, Source, Unique
from mainspring.storage.log import Log

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Violation:
    """A batch broke an expectation: its kind and column (empty for the whole batch), what was found, whether the batch was refused."""

    kind: str
    column: str
    message: str
    refused: bool


class Expectations:
    """The expectations of one source; ``log`` says with which values an event id came before."""

    def __init__(self, source: Source, log: Log) -> None:
        self.source = source
        self._rows = [one for one in source.expect if isinstance(one, Ahead | Unique | Fixed)]
        self._batch = [one for one in source.expect if isinstance(one, Nulls | Fresh | Rows)]
        self._keys = {one: EventKeys(log, source.name, one.columns) for one in self._rows if isinstance(one, Fixed)}

    @property
    def need_all(self) -> bool:
        """Whether a batch must be seen whole before any of it is kept."""
        return bool(self._batch) or any(isinstance(one, Unique) for one in self._rows)

    def hold(self, parts: Sequence[Checked], now: int, *, whole: bool) -> tuple[list[Checked], tuple[Violation, ...]]:
        """The parts of a batch with the facts that break an expectation among the rejected.

        ``now`` is the instant at which they arrive. Without ``whole`` the parts are facts of a stream, of which nothing is expected as
        a batch.
        """
        if not self._rows and not (whole and self._batch):
            return list(parts), ()
        table = pa.Table.from_batches([part.accepted for part in parts])
        found = np.full(table.num_rows, -1)
        reasons: list[str] = []
        for expectation in self._rows:
            broken, reason = self._broken(expectation, table, now)
            found[broken & (found < 0)] = len(reasons)
            reasons.append(reason)
        good = table.filter(pa.array(found < 0)) if (found >= 0).any() else table
        violations = tuple(self._violations(good, now)) if whole else ()
        refusals = [one.message for one in violations if one.refused]
        if refusals:
            found[found < 0] = len(reasons)
            reasons.append(f"batch refused: {'; '.join(refusals)}")
        ends = np.cumsum([part.accepted.num_rows for part in parts])[:-1]
        return [self._apart(part, one, reasons) for part, one in zip(parts, np.split(found, ends), strict=True)], violations

    def _broken(self, expectation: Ahead | Unique | Fixed, table: pa.Table, now: int) -> tuple[Mask, str]:
        if isinstance(expectation, Ahead):
            known = self.source.known_time or self.source.event_time
            reason = f"{self.source.event_time}: is more than {expectation.at_most} ahead of its arrival"
            arrived = np.minimum(_numbers(table, KNOWN_TIME), now) if known != self.source.event_time else now
            return _numbers(table, EVENT_TIME) > arrived + parse_duration(expectation.at_most), reason
        if isinstance(expectation, Unique):
            return _repeated(table, expectation.column), f"{expectation.column}: repeats the value of another fact of the batch"
        names = ", ".join(expectation.columns)
        return self._keys[expectation].differing(
            table
        ), f"{self.source.event_id}: the same event id came before with other values in {names}"

    def _violations(self, table: pa.Table, now: int) -> Iterator[Violation]:
        for one in self._batch:
            column = one.column if isinstance(one, Nulls) else self.source.event_time if isinstance(one, Fresh) else ""
            message = (
                _nulls(table, one) if isinstance(one, Nulls) else _fresh(table, one, now) if isinstance(one, Fresh) else _rows(table, one)
            )
            if message is not None:
                yield Violation(type(one).__name__, column, f"{column}: {message}" if column else message, one.refuse)

    def _apart(self, part: Checked, found: npt.NDArray[np.int64], reasons: Sequence[str]) -> Checked:
        rows = (found >= 0).nonzero()[0]
        if not len(rows):
            return part
        numbers = np.delete(np.arange(len(found) + len(part.rejected)), [one.row for one in part.rejected])
        values = as_json(pa.table(part.accepted).take(rows).select(list(self.source.schema.names)), self.source.schema)
        apart = [Rejected(int(numbers[row]), reasons[found[row]], value) for row, value in zip(rows, values, strict=True)]
        rejected = sorted([*part.rejected, *apart], key=lambda one: one.row)
        return Checked(part.accepted.filter(pa.array(found < 0)), rejected)


def _repeated(table: pa.Table, column: str) -> Mask:
    """Where a value is not null and was there before, with another event id."""
    values = table.column(column)
    codes = np.asarray(values.dictionary_encode().combine_chunks().indices.fill_null(-1).to_numpy(zero_copy_only=False))
    _, first, place = np.unique(codes, return_index=True, return_inverse=True)
    repeats = (codes >= 0) & (first[place] != np.arange(len(codes)))
    ids = table.column(EVENT_ID)
    rows = repeats.nonzero()[0]
    repeats[rows] = pc.not_equal(ids.take(rows), ids.take(first[place[rows]])).to_numpy()
    return np.asarray(repeats, dtype=np.bool_)


def _nulls(table: pa.Table, expected: Nulls) -> str | None:
    nulls = table.column(expected.column).null_count
    if nulls <= expected.at_most * table.num_rows:
        return None
    return f"{nulls:,} of {table.num_rows:,} rows are null ({nulls / table.num_rows:.1%}), at most {expected.at_most:.1%} may be"


def _fresh(table: pa.Table, expected: Fresh, now: int) -> str | None:
    if not table.num_rows:
        return None
    newest = int(_numbers(table, EVENT_TIME).max())
    return (
        None
        if newest >= now - parse_duration(expected.within)
        else f"the newest is of {format_instant(newest)}, over {expected.within} ago"
    )


def _rows(table: pa.Table, expected: Rows) -> str | None:
    rows = table.num_rows
    if rows < (expected.at_least or 0):
        return f"{rows:,} rows, at least {expected.at_least:,} were expected"
    if expected.at_most is not None and rows > expected.at_most:
        return f"{rows:,} rows, at most {expected.at_most:,} were expected"
    return None


def _numbers(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    return np.asarray(table.column(column).to_numpy())
