"""Structured Streaming into the online store: every micro-batch counts once, whatever is killed when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.errors import DataError
from mainspring.feature_store.online import OnlineStore
from mainspring.schema import ENVELOPE, EVENT_ID, Field, Type, arrow_type
from mainspring.spec import Source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_QUERY = "sql.streaming.queryId"


class OnlineSink:
    """What ``foreachBatch`` calls to fold a streaming data frame into an online store.

        events.writeStream.foreachBatch(OnlineSink(online, payments)).option("checkpointLocation", ...).start()

    The data frame holds the source's events as they are stored: the columns of its schema, derived ones included, and
    ``_event_id``, ``_event_time``, ``_known_time``. A batch that Spark runs again, because it died before it wrote down that
    the batch was done, changes nothing; a batch of a checkpoint other than the store's is refused. A batch passes through the
    driver and is one transaction: bound it with ``maxOffsetsPerTrigger`` or ``maxFilesPerTrigger``. The session must be Spark's
    classic one, not Connect, whose functions run elsewhere than the store.

    Args:
        online: the store; other processes may read it meanwhile.
        source: whose events these are.
        stream: a name for each of several streams of one source; the source's own by default.
    """

    def __init__(self, online: OnlineStore, source: Source, stream: str | None = None) -> None:
        self._online = online
        self._source = source
        self._stream = stream or source.name
        fields = [*source.columns.fields, Field(EVENT_ID, source.schema[source.event_id].type)]
        fields += [Field(name, Type.INSTANT) for name in ENVELOPE if name != EVENT_ID]
        self._schema = pa.schema([pa.field(field.name, arrow_type(field.type)) for field in fields])

    def __call__(self, batch: DataFrame, number: int) -> None:
        """Fold the micro-batch, if it has not been.

        Raises:
            DataError: a column is missing, or is not of its declared type.
            StorageError: the store holds another checkpoint's batches or lacks some of this one's, or it fails.
        """
        place = f"Stream '{self._stream}', batch {number}"
        missing = [name for name in self._schema.names if name not in batch.columns]
        if missing:
            raise DataError(f"{place}: there is no column '{missing[0]}' of source '{self._source.name}'. Add it to the data frame.")
        origin = batch.sparkSession.sparkContext.getLocalProperty(_QUERY) or ""
        self._online.apply_batch(self._stream, number, self._source.name, self._rows(batch, place), origin)

    def _rows(self, batch: DataFrame, place: str) -> pa.RecordBatch:
        table = batch.select(*self._schema.names).toArrow()
        for field in self._schema:
            if table.schema.field(field.name).type != field.type:
                raise DataError(f"{place}: column '{field.name}' is {table.schema.field(field.name).type}. Cast it to {field.type}.")
        return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=self._schema)
