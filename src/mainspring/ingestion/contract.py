"""The contract of a source: what each of its facts must look like, checked one by one or by the hundred thousand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.clock import format_instant
from mainspring.errors import DataError, RequestError, did_you_mean
from mainspring.ingestion.decoding import row_decoder, rows_decoder
from mainspring.ingestion.derive import derive
from mainspring.ingestion.values import EARLIEST, LATEST, MOST_EXACT, rules, value_check
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME, Schema, Type, arrow_type
from mainspring.spec import Source
from mainspring.spec.aggregate import Value

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that breaks the contract: its number in what was checked, ``column: what is wrong``, its values as they came."""

    row: int
    reason: str
    row_values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line of a file that no object could be read from: why, and its text."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Accepted rows as a batch of the source's columns, its derived columns and the envelope; rejected rows in order."""

    accepted: pa.RecordBatch
    rejected: list[Rejected]


class Contract:
    """The checks of one source, compiled once; stateless afterwards."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._rules = rules(source)
        self._checks = tuple((rule.field.name, value_check(rule)) for rule in self._rules)
        self._required = tuple(field.name for field in source.schema.fields if not field.nullable)
        self._names = frozenset(source.schema.names)
        self._decode = row_decoder(self._rules)
        self._decode_rows = rows_decoder(self._rules)
        self._derived = tuple(function.name for function in source.derive)

    def check(self, body: Mapping[str, Any], shared: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """The typed values of one JSON object in schema order, missing nullable columns as None, derived columns last.

        ``shared`` are columns that `check_shared` has checked; what the body holds counts before them. Instants are ISO 8601
        text, without an offset in UTC, and become int microseconds. A whole number is fine for a float; apart from that
        nothing is converted.

        Raises:
            RequestError: a column is missing, unknown, of another type, not finite, or out of range; ``field`` names it.
            DeclarationError: a derived column's function failed.
        """
        return self._with_derived(self._typed(body, shared or {}))

    def check_shared(self, body: Mapping[str, Any]) -> dict[str, Value]:
        """The typed values of some of the columns, which many rows have in common; errors as in `check`."""
        if not body.keys() <= self._names:
            raise self._unknown(body)
        return {name: check(body[name]) for name, check in self._checks if name in body}

    def decode(self, body: bytes) -> dict[str, Value] | None:
        """What `check` gives for the JSON object in ``body``, in a tenth of the time; None where `check` has to say what is wrong.

        Raises:
            DeclarationError: a derived column's function failed.
        """
        row = self._decode(body)
        return None if row is None else self._with_derived(row)

    def decode_rows(self, body: bytes) -> list[dict[str, Value]] | None:
        """What `check` gives for each of the rows of ``{"shared": {...}, "rows": [{...}, ...]}``; None as in `decode`.

        Raises:
            DeclarationError: a derived column's function failed.
        """
        rows = self._decode_rows(body)
        return None if rows is None else [self._with_derived(row) for row in rows]

    def check_rows(self, rows: Sequence[Any]) -> Checked:
        """`check` of many JSON objects; what is not an object or breaks the contract is rejected by itself, as is an `Unreadable`."""
        accepted: list[dict[str, Value]] = []
        rejected: list[Rejected] = []
        for number, body in enumerate(rows):
            if isinstance(body, Unreadable):
                rejected.append(Rejected(number, body.reason, {"": body.text}))
                continue
            if not isinstance(body, Mapping):
                rejected.append(Rejected(number, "must be an object", {"": body}))
                continue
            try:
                accepted.append(self._typed(body, {}))
            except RequestError as error:
                rejected.append(Rejected(number, str(error), dict(body)))
        return Checked(self._batch({name: [row[name] for row in accepted] for name in self.source.schema.names}), rejected)

    def check_batch(self, table: pa.Table) -> Checked:
        """The same checks on a table, vectorised. Arrow timestamps and int64 microseconds are instants as well as ISO text.

        Raises:
            DataError: a required column is missing, a column is unknown or cannot be cast without loss.
            DeclarationError: a derived column's function failed.
        """
        import numpy as np
        import pyarrow as pa

        from mainspring.ingestion.columns import check_column

        self._refuse_other_columns(table.column_names)
        columns: dict[str, pa.Array] = {}
        reasons: list[str] = []
        found = np.full(table.num_rows, -1)
        for rule in self._rules:
            name = rule.field.name
            if name not in table.column_names:
                columns[name] = pa.nulls(table.num_rows, arrow_type(rule.field.type))
                continue
            columns[name], problems = check_column(table.column(name), rule, self.source.name)
            for problem in problems:
                found[problem.rows & (found < 0)] = len(reasons)
                reasons.append(f"{name}: {problem.message}")
        if (found >= 0).any():
            keep = pa.array(found < 0)
            columns = {name: column.filter(keep) for name, column in columns.items()}
        return Checked(self._batch(columns), _rejected(table, found, reasons, self.source.schema))

    def _typed(self, body: Mapping[str, Any], shared: Mapping[str, Value]) -> dict[str, Value]:
        if not body.keys() <= self._names:
            raise self._unknown(body)
        row: dict[str, Value] = {}
        for name, check in self._checks:
            if name in body:
                row[name] = check(body[name])
            elif name in shared:
                row[name] = shared[name]
            elif name in self._required:
                raise RequestError(name, "is missing")
            else:
                row[name] = None
        return row

    def _with_derived(self, row: dict[str, Value]) -> dict[str, Value]:
        if self._derived:
            derived = derive(self.source.derive, {name: (value,) for name, value in row.items()}, self.source.schema)
            row.update((name, derived[name][0]) for name in self._derived)
        return row

    def _batch(self, columns: Mapping[str, Any]) -> pa.RecordBatch:
        """Valid columns of the schema, as Arrow arrays or lists, with the derived columns and the envelope after them."""
        import pyarrow as pa

        source = self.source
        arrays = {field.name: pa.array(columns[field.name], type=arrow_type(field.type)) for field in source.schema.fields}
        if source.derive:
            read = {name for function in source.derive for name in function.inputs}
            derived = derive(source.derive, {name: arrays[name].to_pylist() for name in read}, source.schema)
            arrays |= {function.name: pa.array(derived[function.name], type=arrow_type(function.type)) for function in source.derive}
        event_time = arrays[source.event_time]
        known_time = event_time if source.known_time is None else arrays[source.known_time].fill_null(event_time)
        arrays |= {EVENT_ID: arrays[source.event_id], EVENT_TIME: event_time, KNOWN_TIME: known_time}
        return pa.RecordBatch.from_pydict(arrays)

    def _unknown(self, body: Mapping[str, Any]) -> RequestError:
        name = str(next(name for name in body if name not in self._names))[:_LONGEST_NAME]
        name = name.encode(errors="replace").decode()
        return RequestError(name, f"is not known.{did_you_mean(name, self._names)}")

    def _refuse_other_columns(self, names: Sequence[str]) -> None:
        place = f"Source '{self.source.name}'"
        for name in names:
            if name not in self._names:
                raise DataError(
                    f"{place}, column '{name}': the schema has no such column.{did_you_mean(name, self._names)} "
                    "Rename or drop it, or declare it in the schema."
                )
            if names.count(name) > 1:
                raise DataError(f"{place}, column '{name}': it is there twice. Drop one of them.")
        for name in self._required:
            if name not in names:
                raise DataError(
                    f"{place}, column '{name}': it is missing. Add it, or declare it nullable with '| None'. There are: {', '.join(names)}."
                )


def _rejected(table: pa.Table, found: npt.NDArray[np.int64], reasons: Sequence[str], schema: Schema) -> list[Rejected]:
    rows = (found >= 0).nonzero()[0]
    values = as_json(_taken(table, rows), schema) if len(rows) else []
    return [Rejected(int(row), reasons[found[row]], value) for row, value in zip(rows, values, strict=True)]


def as_json(table: pa.Table, schema: Schema) -> list[dict[str, Any]]:
    """The rows as `Contract.check` takes them: instants as ISO 8601 text, whole floats of an int column as integers.

    What Python's types cannot hold, such as nanoseconds or text that is no UTF-8, becomes text that shows it.
    """
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        values = _readable(table.column(name)).to_pylist()
        type_ = schema[name].type if name in schema else None
        columns[name] = [_written(value, type_) for value in values] if type_ in (Type.INT, Type.INSTANT) else values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _taken(table: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Some rows of a table; Arrow itself takes none from a column of string views."""
    import pyarrow as pa

    from mainspring.ingestion.columns import decoded

    columns = dict(zip(table.column_names, table.columns, strict=True))
    views = {name: decoded(one)[0].cast(pa.string()) for name, one in columns.items() if pa.types.is_string_view(one.type)}
    return pa.table({**columns, **views}).take(rows)


def _readable(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    from mainspring.ingestion.columns import decoded

    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp(column.type.unit)).cast(pa.string())
    return decoded(column)[0]


def _written(value: Any, type_: Type | None) -> Any:
    if type_ == Type.INSTANT and isinstance(value, int) and EARLIEST <= value <= LATEST:
        return format_instant(value)
    return int(value) if type_ == Type.INT and isinstance(value, float) and value.is_integer() and abs(value) <= MOST_EXACT else value
