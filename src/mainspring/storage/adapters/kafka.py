"""Event log on Kafka: one topic with one partition, one message a frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from mainspring.errors import MissingExtraError, StorageError
from mainspring.storage import frames
from mainspring.storage.log import Frame, check_source, outside

ROWS = 1 << 20
"""Numbers that a message has for its rows."""
_LARGEST_MESSAGE = 900_000
_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.1
_ELSEWHERE = -1


class KafkaLog:
    """Events in the order of a topic's only partition.

    A message is a frame; its rows are numbered from the message's own offset times 2**20 on. The numbers grow but leave gaps,
    and reading may begin at any of them. A batch that makes more than 900 kB or 2**20 rows goes as several messages: when such an
    append raises, the first of them may be in the log; append all again, for ids count once.

    The producer is idempotent and waits for all replicas (``acks=all``), so an append survives what the topic's
    ``replication.factor`` and ``min.insync.replicas`` let it. Keep the topic for ever (``retention.ms=-1`` and ``retention.bytes=-1``;
    Kafka's default is a week): a read from what was dropped is an error, and nothing can be rebuilt from it.
    No transactions: a reader keeps its place with what it derives.

    Args:
        servers: ``host:port``, several with commas between.
        topic: a topic with one partition; it must be there.
        settings: settings of librdkafka, for both directions: ``{"security.protocol": "SASL_SSL", ...}``.

    Raises:
        MissingExtraError: the package ``confluent-kafka`` is not installed.
        StorageError: no server answers, the topic is not there, or it has several partitions.
    """

    def __init__(self, servers: str, *, topic: str, settings: Mapping[str, str] | None = None) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise MissingExtraError("An event log on Kafka", "confluent-kafka", "kafka") from error
        self._kafka = confluent_kafka
        self._settings = {"bootstrap.servers": servers, "log_level": 2, **(settings or {})}
        self._topic = topic
        self.place = f"kafka://{servers}/{topic}"
        self._producer: Any = None
        self._idle: list[tuple[int, Any]] = []
        self._asker = self._consumer()
        self._check_topic()

    @property
    def end(self) -> int:
        """The number that the next event will get."""
        return self._bounds()[1]

    def behind(self, offset: int) -> int:
        """How many messages lie from number ``offset`` to the end; how many events they hold, Kafka does not count."""
        return (self.end - offset + ROWS - 1) // ROWS

    def append(self, source: str, batch: pa.RecordBatch) -> int:
        """Append the rows of ``batch`` as events of ``source`` and return the number of the first; no rows append nothing.

        Raises:
            StorageError: the source's name is not an identifier, one row is over 900 kB, or a message was not delivered in 10 s.
        """
        check_source(self.place, source)
        if not batch.num_rows:
            return self.end
        delivered: list[tuple[Any, Any]] = []
        try:
            producer = self._producer = self._producer or self._kafka.Producer(self._producing())
            for message in self._messages(source, batch):
                producer.produce(
                    self._topic, message, partition=0, on_delivery=lambda error, sent: delivered.append((error, sent.offset()))
                )
            left = producer.flush(2 * _WAIT_SECONDS)
        except (self._kafka.KafkaException, BufferError) as error:
            raise self._undelivered(source, batch, str(error)) from error
        failures = [str(error) for error, _ in delivered if error is not None]
        if left or failures:
            self._producer = None
            raise self._undelivered(source, batch, failures[0] if failures else "no answer in time")
        first: int = min(offset for _, offset in delivered)
        return first * ROWS

    def read(self, offset: int = 0, until: int | None = None) -> Iterator[Frame]:
        """The events from number ``offset`` up to ``until`` or, if that is nearer, the end as it is now, in order.

        Raises:
            StorageError: ``offset`` lies outside what the topic still keeps; while reading, a message is damaged.
        """
        first, end = self._bounds()
        if not min(first, end) <= offset <= end:
            raise outside(self.place, offset, first, end)
        return self._read(offset, end if until is None else min(until, end))

    def close(self) -> None:
        """Let go of the connections."""
        for consumer in (self._asker, *(consumer for _, consumer in self._idle)):
            consumer.close()
        self._idle.clear()

    def _read(self, offset: int, stop: int) -> Iterator[Frame]:
        if offset >= stop:
            return
        place, last = offset // ROWS, (stop - 1) // ROWS
        consumer = self._placed(place)
        try:
            for message in self._consumed(consumer, last):
                start = message.offset() * ROWS
                place = message.offset() + 1
                frame = self._frame(start, message.value())
                skip = max(offset - start, 0)
                part = frame.batch.slice(skip, max(stop - start - skip, 0))
                if part.num_rows:
                    yield Frame(start + skip, frame.source, part, min(stop, start + ROWS))
        except self._kafka.KafkaException as error:
            raise self._failed(error) from error
        finally:
            self._idle.append((place if place == last + 1 else _ELSEWHERE, consumer))

    def _consumed(self, consumer: Any, last: int) -> Iterator[Any]:
        """Messages up to the one at offset ``last``, or where the partition ends before it with a transaction's marker."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            message = consumer.poll(_POLL_SECONDS)
            if message is None:
                if time.monotonic() > deadline:
                    raise StorageError(f"Event log, {self.place}: no message came in {_WAIT_SECONDS:.0f} s. Start the servers.")
                continue
            if message.error() is not None:
                if message.error().code() == self._kafka.KafkaError._PARTITION_EOF:
                    if message.offset() > last:
                        return
                    continue
                raise self._failed(message.error())
            if message.offset() <= last:
                yield message
            if message.offset() >= last:
                return
            deadline = time.monotonic() + _WAIT_SECONDS

    def _placed(self, place: int) -> Any:
        """A consumer whose next message is the one at offset ``place``: an idle one that stands there, or any, moved."""
        at = next((i for i, (standing, _) in enumerate(self._idle) if standing == place), None)
        if at is not None:
            return self._idle.pop(at)[1]
        consumer = self._idle.pop()[1] if self._idle else self._consumer()
        consumer.assign([self._kafka.TopicPartition(self._topic, 0, place)])
        return consumer

    def _frame(self, start: int, data: bytes) -> Frame:
        try:
            source, batch = frames.from_message(data or b"")
        except (ValueError, OSError) as error:
            raise StorageError(
                f"Event log, {self.place}, event {start}: message {start // ROWS} is damaged or not of this log: {error}. "
                "Restore the topic from a copy."
            ) from error
        return Frame(start, source, batch)

    def _messages(self, source: str, batch: pa.RecordBatch) -> Iterator[bytes]:
        message = frames.to_message(source, batch) if batch.num_rows <= ROWS else b""
        if message and (len(message) <= _LARGEST_MESSAGE or batch.num_rows == 1):
            yield message
            return
        half = batch.num_rows // 2
        yield from self._messages(source, batch.slice(0, half))
        yield from self._messages(source, batch.slice(half))

    def _bounds(self) -> tuple[int, int]:
        partition = self._kafka.TopicPartition(self._topic, 0)
        low, high = self._asked(lambda: self._asker.get_watermark_offsets(partition, timeout=_WAIT_SECONDS))
        return low * ROWS, high * ROWS

    def _check_topic(self) -> None:
        found = self._asked(lambda: self._asker.list_topics(self._topic, timeout=_WAIT_SECONDS)).topics[self._topic]
        if found.error is not None:
            raise StorageError(
                f"Event log, {self.place}: {found.error}. Make the topic: kafka-topics.sh --create --topic {self._topic} --partitions 1 "
                "--config retention.ms=-1"
            )
        if len(found.partitions) != 1:
            raise StorageError(
                f"Event log, {self.place}: the topic has {len(found.partitions)} partitions. Kafka orders events only within one, and a "
                "log is one order: use a topic with a single partition. Workers share its keys, so one partition feeds many of them."
            )

    def _consumer(self) -> Any:
        return self._kafka.Consumer(
            {
                **self._settings,
                "group.id": "mainspring",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 16_384,
            }
        )

    def _producing(self) -> dict[str, Any]:
        timeout = int(_WAIT_SECONDS * 1_000)
        return {**self._settings, "enable.idempotence": True, "acks": "all", "linger.ms": 0, "delivery.timeout.ms": timeout}

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except self._kafka.KafkaException as error:
            raise self._failed(error) from error

    def _undelivered(self, source: str, batch: pa.RecordBatch, why: str) -> StorageError:
        return StorageError(
            f"Event log, {self.place}: {batch.num_rows} events of '{source}' were not appended, or not known to be ({why}). "
            "Mend the servers and append them again."
        )

    def _failed(self, error: Any) -> StorageError:
        return StorageError(f"Event log, {self.place}: {error}. Start the servers, or mend the address.")
