"""Event log on a server that speaks the Redis protocol: one stream, one entry a frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mainspring.errors import MissingExtraError, StorageError
from mainspring.storage import frames
from mainspring.storage.log import Frame, check_source, outside

_WAIT_SECONDS = 30.0
_ROWS_AT_ONCE = 50_000
_MOST_ENTRIES = 1_000

_NEXT = """
local offset = 0
if redis.call('EXISTS', KEYS[1]) == 1 then
    local about = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #about, 2 do
        if about[i] == 'last-generated-id' then
            local first, rows = string.match(about[i + 1], '(%d+)-(%d+)')
            offset = first + rows
        end
    end
end
offset = string.format('%.0f', offset)
"""
_APPEND = "redis.call('XADD', KEYS[1], offset .. '-' .. ARGV[1], 'frame', ARGV[2])\n"
_RETURN = "return offset"


class RedisStreamLog:
    """Events numbered 0, 1, 2, ... over all producers, in one Redis stream.

    An entry's id is ``OFFSET-ROWS``: the number of its first event and how many there are. The next id is worked out and added
    in one script on the server, so any number of producers share the numbering. A read from any number on is one XRANGE a
    time, of at most about 50,000 rows or one entry.

    How durable an append is, the server decides: with ``appendonly yes`` and ``appendfsync always`` it survives a power cut
    once it returns; with ``everysec`` the last second may be lost, and what was derived from it must then be rebuilt. The
    whole stream lies in the server's memory. Entries may be trimmed: numbers go on, and a read of what is gone is an error.

    Args:
        url: ``redis://user:password@host:port/database``, ``rediss://`` with TLS, ``unix://`` for a socket.
        stream: the stream's key.

    Raises:
        MissingExtraError: the package ``redis`` is not installed.
        StorageError: the address is none, or the server does not answer.
    """

    def __init__(self, url: str, *, stream: str) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError("An event log on Redis", "redis", "redis") from error
        self._errors = (redis.RedisError, OSError)
        self._stream = stream
        self.place = f"{url.rsplit('@', 1)[-1]}#{stream}"
        try:
            self._client: Any = redis.Redis.from_url(url, socket_timeout=_WAIT_SECONDS, socket_connect_timeout=5.0, retry=None)
            self._client.ping()
        except (redis.RedisError, ValueError, OSError) as error:
            raise self._failed(error) from error
        self._end, self._append = (self._client.register_script(text) for text in (_NEXT + _RETURN, _NEXT + _APPEND + _RETURN))

    @property
    def end(self) -> int:
        """The number that the next event will get."""
        try:
            return int(self._end(keys=[self._stream]))
        except self._errors as error:
            raise self._failed(error) from error

    def behind(self, offset: int) -> int:
        """How many events lie from number ``offset`` to the end."""
        return self.end - offset

    def append(self, source: str, batch: pa.RecordBatch) -> int:
        """Append the rows of ``batch`` as events of ``source`` and return the number of the first; no rows append nothing.

        Raises:
            StorageError: the source's name is not an identifier; the server fails, refuses the batch (512 MB at most) or does not
                answer in 30 s: it may then have taken it or not, and taking it twice does no harm, for ids count once.
        """
        check_source(self.place, source)
        if not batch.num_rows:
            return self.end
        try:
            return int(self._append(keys=[self._stream], args=[batch.num_rows, frames.to_message(source, batch)]))
        except self._errors as error:
            raise StorageError(
                f"Event log, {self.place}: {batch.num_rows} events of '{source}' were not appended, or not known to be ({error}). "
                "Mend the server and append them again."
            ) from error

    def read(self, offset: int = 0, until: int | None = None) -> Iterator[Frame]:
        """The events from number ``offset`` up to ``until`` or, if that is nearer, the end as it is now, in order.

        Raises:
            StorageError: ``offset`` lies outside the log; while reading, an entry is damaged or gone.
        """
        end = self.end
        if not 0 <= offset <= end:
            raise outside(self.place, offset, 0, end)
        return self._read(offset, end if until is None else min(until, end))

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _read(self, offset: int, stop: int) -> Iterator[Frame]:
        entries = self._entries("XREVRANGE", offset, "-", 1)
        while offset < stop:
            if not entries:
                raise self._gone(offset)
            for name, fields in entries:
                frame = self._frame(name, fields)
                if not frame.offset <= offset < frame.end:
                    raise self._gone(offset)
                skip = offset - frame.offset
                yield Frame(offset, frame.source, frame.batch.slice(skip, stop - offset))
                offset, rows = frame.end, frame.batch.num_rows
                if offset >= stop:
                    return
            entries = self._entries("XRANGE", offset, "+", max(1, min(_ROWS_AT_ONCE // rows, _MOST_ENTRIES)))

    def _entries(self, command: str, start: int, end: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        try:
            found: list[tuple[bytes, dict[bytes, bytes]]] = self._client.execute_command(command, self._stream, start, end, "COUNT", count)
        except self._errors as error:
            raise self._failed(error) from error
        return found

    def _frame(self, name: bytes, fields: dict[bytes, bytes]) -> Frame:
        offset, rows = map(int, name.split(b"-"))
        try:
            source, batch = frames.from_message(fields.get(b"frame", b""))
            if batch.num_rows != rows:
                raise ValueError(f"it holds {batch.num_rows} rows, its id says {rows}")
        except (ValueError, OSError) as error:
            raise StorageError(
                f"Event log, {self.place}, event {offset}: entry {name.decode()} is damaged: {error}. Restore the stream from a copy."
            ) from error
        return Frame(offset, source, batch)

    def _gone(self, offset: int) -> StorageError:
        return StorageError(
            f"Event log, {self.place}: event {offset} is gone: entries were trimmed, deleted or added by hand. "
            "Restore the stream from a copy."
        )

    def _failed(self, error: Exception) -> StorageError:
        return StorageError(f"Event log, {self.place}: {error}. Start the server, or mend its address.")
