"""One view in the online store: what its keys and rows look like, and the answers that rows give."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array, fits, to_array, to_values
from mainspring.errors import DataError, StorageError
from mainspring.feature_engineering.facts import ViewPlan
from mainspring.feature_store.batch import Batch
from mainspring.feature_store.keys import pack_key
from mainspring.feature_store.packing import FORMAT, Row, RowFormat
from mainspring.schema import ENVELOPE, EVENT_ID, EVENT_TIME, KNOWN_TIME, Status, Type, arrow_type
from mainspring.spec import Aggregate, View
from mainspring.storage.key_value import KeyValue
from mainspring.storage.sharded import PREFIX_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.feature_store.incoming import Incoming

Answer = tuple[Any, Status]
_log = logging.getLogger(__name__)


class OnlineView:
    """A view and its aggregates over packed rows.

    First rows lie under keys that begin with ``prefix``, second rows under such as begin with ``older_prefix``: see `_identity`.
    Up to ``few`` rows are answered one after another, which is faster than all at once.
    """

    few = 10

    def __init__(self, view: View, aggregates: tuple[Aggregate, ...]) -> None:
        self.plan = ViewPlan(view, aggregates)
        self.form = RowFormat(self.plan)
        self.prefix, self.older_prefix = _identity(self.plan)
        self.whole = not self.plan.attributes
        """Whether answers commonly need both rows of a key."""
        self.unavailable = tuple((aggregate.default, Status.UNAVAILABLE) for aggregate in aggregates)
        self._unknown = tuple((value, Status.UNKNOWN_KEY) for value, _ in self.plan.read(self.plan.empty(), 0))
        self._types = {name: view.source.columns[name].type for name in (*view.columns, *self.plan.columns)}
        self._fitting: pa.Schema | None = None
        self._ages = [(self.plan.columns.index(one.column or ""), one.max_age_us) for one in aggregates if one.is_newest]

    def key(self, request: Mapping[str, Any]) -> bytes:
        """The key of a request's row."""
        return self.prefix + pack_key([request[name] for name in self.plan.view.on])

    def keys(self, packed: Sequence[bytes]) -> list[bytes]:
        """The keys of requests' rows, from what `mainspring.feature_store.keys.pack_key` makes of their values of ``view.on``."""
        prefix = self.prefix
        return [prefix + key for key in packed]

    def older(self, key: bytes) -> bytes:
        """The key of the second row, from that of the first."""
        return self.older_prefix + key[PREFIX_BYTES:]

    def answer(self, store: KeyValue, key: bytes, recent: bytes | None, older: bytes | None, as_of: int) -> Sequence[Answer]:
        """Value and status of every aggregate as known at ``as_of``, from the rows of a key; the defaults where a row is damaged.

        Where answers do not commonly need the second row, both are read from the store if this one does.
        """
        if recent is None:
            return self._unknown
        try:
            if not self.whole:
                settled, event_time, values = self.form.newest(recent)
                if settled <= as_of:
                    return [_attribute(values[i], event_time, as_of, max_age) for i, max_age in self._ages]
                recent, older = store.get_many([key, self.older(key)])
            return self.plan.read(self.form.unpack(Row(recent or b"", older or b"")), as_of)
        except StorageError as error:
            _log.error("View '%s': %s", self.plan.view.name, error)
            return self.unavailable

    def answer_many(
        self,
        store: KeyValue,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        older: Sequence[bytes | None],
        as_of: npt.NDArray[np.int64],
    ) -> tuple[list[Array], npt.NDArray[np.uint8]]:
        """What `answer` gives for each key: a column of shape ``(n,)`` per aggregate, and statuses of shape ``(n, aggregates)``."""
        together = Batch(self.plan, self.form, rows, older, as_of).answers() if len(rows) > self.few else None
        if together is not None and together.answered.all():
            return together.values, together.statuses
        rest = range(len(rows)) if together is None else np.flatnonzero(~together.answered).tolist()
        answers = [self.answer(store, keys[i], rows[i], older[i], int(as_of[i])) for i in rest]
        statuses = np.empty((len(rows), len(self.plan.aggregates)), dtype=np.uint8) if together is None else together.statuses
        for place, answer in zip(rest, answers, strict=True):
            statuses[place] = [status for _, status in answer]
        columns = []
        for i, aggregate in enumerate(self.plan.aggregates):
            values: list[Any] = [None] * len(rows) if together is None else to_values(together.values[i])
            for row, answer in zip(rest, answers, strict=True):
                values[row] = answer[i][0]
            columns.append(to_array(values, aggregate.type))
        return columns, statuses

    def check(self, batch: pa.RecordBatch) -> None:
        """Hold the columns that `incoming` reads to their declared types; whole numbers may stand for floats, nulls for anything.

        Raises:
            DataError: a column has another type, one that is not nullable is not there, or an event time is null.
        """
        if EVENT_TIME in batch.schema.names and batch.column(EVENT_TIME).null_count:
            raise DataError(f"View '{self.plan.view.name}': an event time is null.")
        if self._fitting is not None and self._fitting.equals(batch.schema):
            return
        view = self.plan.view
        envelope = {EVENT_TIME: Type.INSTANT, KNOWN_TIME: Type.INSTANT, EVENT_ID: view.source.columns[view.source.event_id].type}
        for name, type_ in (envelope | self._types).items():
            at = batch.schema.get_field_index(name)
            if at < 0 and (name in envelope or not view.source.columns[name].nullable):
                raise DataError(f"View '{view.name}' reads column '{name}', which is not there.")
            if at >= 0 and not fits(batch.schema.types[at], type_):
                raise DataError(f"View '{view.name}' reads column '{name}' as {type_}, it is {batch.schema.types[at]}.")
        self._fitting = batch.schema

    def incoming(self, batches: Sequence[pa.RecordBatch], share: tuple[int, int] | None = None) -> Incoming:
        """The facts of batches of the view's source, or those that fall to shard ``i`` of ``n``; a column that is not there is null."""
        import pyarrow as pa

        from mainspring.feature_store.incoming import Incoming

        names = [*ENVELOPE, *self._types]
        if len(batches) == 1 and set(names) <= set(batches[0].schema.names):
            return Incoming(self.plan, self.form, batches[0], share)
        tables = [pa.Table.from_batches([batch.select([name for name in names if name in batch.schema.names])]) for batch in batches]
        table = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
        for name, type_ in self._types.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), arrow_type(type_)))
        return Incoming(self.plan, self.form, table.combine_chunks().to_batches()[0], share)


def _attribute(value: Any, event_time: int, as_of: int, max_age: int | None) -> Answer:
    if max_age is not None and event_time < as_of - max_age:
        return None, Status.EXPIRED
    return value, Status.NULL if value is None else Status.PRESENT


def _identity(plan: ViewPlan) -> tuple[bytes, bytes]:
    """Twice eight bytes that change with whatever changes a stored row: its format, source, keys, columns kept, retention, lifetimes."""
    view = plan.view
    lifetimes = [plan.aggregates[i] for i in plan.lifetimes]
    folds = [(one.function, one.column, one.argument, one.where, one.by) for one in lifetimes]
    types = [str(type_) for type_ in plan.types]
    identity = (FORMAT, view.source.name, view.source.kind, view.columns, plan.columns, types, plan.retention, folds)
    digest = hashlib.sha256(repr(identity).encode()).digest()
    return digest[:PREFIX_BYTES], digest[PREFIX_BYTES : 2 * PREFIX_BYTES]
