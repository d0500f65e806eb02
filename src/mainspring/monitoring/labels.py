"""Delayed labels: predictions joined with the truth once it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.errors import DataError, did_you_mean
from mainspring.schema import EVENT_ID, EVENT_TIME, KNOWN_TIME

if TYPE_CHECKING:
    import pyarrow as pa


def match(predictions: pa.Table, facts: pa.Table, *, on: str, column: str, now: int) -> pa.Table:
    """The predictions whose label is known at ``now``, in their order, with ``label`` and ``label_known_at`` added.

    ``request.<on>`` of a prediction is matched with ``<on>`` of the facts (columns of the label's source and its envelope).
    Only facts with ``_known_time <= now`` exist; of several for one key the newest known wins, on a tie the newest event,
    then the greatest event id. Each prediction comes back at most once; a null key matches nothing, and a null label,
    were it the newest, is no label.

    Raises:
        DataError: a column is not there, or the keys have different types.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    _need(predictions, f"request.{on}", "predictions")
    for name in (on, column, EVENT_ID, EVENT_TIME, KNOWN_TIME):
        _need(facts, name, "label facts")
    wanted, keys = _plain(predictions[f"request.{on}"]), _plain(facts[on])
    if wanted.type != keys.type:
        raise DataError(f"Labels: 'request.{on}' is {wanted.type} but '{on}' of the facts is {keys.type}. Keys must have one type.")
    facts = pa.table({"key": keys, "label": facts[column], **{name: facts[name] for name in (EVENT_ID, EVENT_TIME, KNOWN_TIME)}})
    facts = facts.filter(pc.less_equal(facts[KNOWN_TIME], now))
    facts = facts.sort_by([(KNOWN_TIME, "ascending"), (EVENT_TIME, "ascending"), (EVENT_ID, "ascending")])
    newest = facts.append_column("row", pa.array(range(len(facts)), pa.int64())).group_by("key").aggregate([("row", "max")])
    place = pc.index_in(wanted, value_set=newest["key"].combine_chunks(), skip_nulls=True)
    winners = facts.take(newest["row_max"]).take(place)
    joined = predictions.append_column("label", winners["label"]).append_column("label_known_at", winners[KNOWN_TIME])
    return joined.filter(pc.is_valid(joined["label"]))


def _need(table: pa.Table, name: str, what: str) -> None:
    if name not in table.column_names:
        raise DataError(f"Labels: the {what} have no column '{name}'.{did_you_mean(name, table.column_names)}")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column
