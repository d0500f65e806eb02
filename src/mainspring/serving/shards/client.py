"""Who asks shards: one question to each that is concerned, all at the same time, within a deadline."""

from __future__ import annotations

import random
import socket
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mainspring.breaker import Breaker
from mainspring.errors import StorageError
from mainspring.models.large_tables import LargeTable, Numbers, OpenTables, Vectors, fingerprint, shard_of
from mainspring.serving.shards.wire import Frame, Opening, Says, connect, encoded_rows, receive, send

FAILURES = 3
"""So many times in a row a shard may fail, or be late, before it is not asked for a while."""
PATIENCE_SECONDS = 30.0
"""How long a shard that cannot be reached is waited for when tables are opened; one that loads them is waited for as long as it does."""
_LOOK_SECONDS = 0.05
_LEAST_SECONDS = 0.001


class _Question(NamedTuple):
    shard: int
    places: dict[str, Numbers]
    body: bytes
    numbers: int


def sharded(addresses: Sequence[str], deadline: float, *, patience: float = PATIENCE_SECONDS) -> OpenTables:
    """What opens tables in the shards at these addresses, in the order of their numbers; a lookup may take ``deadline`` seconds."""

    def open_tables(tables: Sequence[LargeTable]) -> ShardedTables:
        opened = ShardedTables(tables, addresses, deadline)
        opened.open(patience)
        return opened

    return open_tables


class ShardedTables:
    """Tables whose rows are in shards; the connections are closed with it. To be used by one thread at a time."""

    def __init__(self, tables: Sequence[LargeTable], addresses: Sequence[str], deadline: float) -> None:
        self._tables = tuple(tables)
        self._deadline = deadline
        self._shards = [_Shard(address, Opening(number, len(addresses), self._tables)) for number, address in enumerate(addresses)]
        for shard in self._shards:
            weakref.finalize(self, shard.close)

    def open(self, patience: float) -> None:
        """Wait until every shard has the tables.

        Raises:
            StorageError: one cannot be reached for ``patience`` seconds, or refuses.
        """
        for shard in self._shards:
            shard.open(patience)

    def rows(self, wanted: Mapping[str, Numbers]) -> dict[str, Vectors]:
        """See `mainspring.models.large_tables.Lookup`; no row is asked for twice, and every shard concerned is asked once.

        Raises:
            StorageError: a shard cannot be reached, is late, failed too often, or has other tables; or has only begun to load these.
        """
        until = time.monotonic() + self._deadline
        questions = [self._question(number, wanted) for number in range(len(self._shards))]
        asked = [(one, self._shards[one.shard]) for one in questions if one.numbers]
        for question, shard in asked:
            shard.ask(question, until)
        widths = {table.name: table.width for table in self._tables if table.name in wanted}
        found = {name: np.empty((len(wanted[name]), width), np.float32) for name, width in widths.items()}
        problems = []
        for question, shard in asked:
            try:
                _put(found, question.places, shard.answer(question, until))
            except StorageError as error:
                problems.append(error)
        if problems:
            raise problems[0]
        return found

    def _question(self, number: int, wanted: Mapping[str, Numbers]) -> _Question:
        places: dict[str, Numbers] = {}
        rows = []
        for table in self._tables:
            asked = wanted.get(table.name, np.empty(0, np.int64))
            own = np.flatnonzero(shard_of(asked, len(table.stripes), len(self._shards)) == number)
            places |= {table.name: own} if table.name in wanted else {}
            rows.append(asked[own])
        numbers = sum(len(own) * table.width for own, table in zip(rows, self._tables, strict=True))
        return _Question(number, places, encoded_rows(rows), numbers)


def _put(found: dict[str, Vectors], places: Mapping[str, Numbers], numbers: Vectors) -> None:
    """Put the vectors that a shard gave, one after another, in their places."""
    begin = 0
    for name, rows in places.items():
        width = found[name].shape[1]
        end = begin + len(rows) * width
        found[name][rows] = numbers[begin:end].reshape(len(rows), width)
        begin = end


class _Shard:
    """A connection to a shard, made again when it breaks, and what is known of its failures."""

    def __init__(self, address: str, opening: Opening) -> None:
        self._name = f"Shard {opening.shard} of {opening.shards} ({address})"
        self._address, self._opening = address, opening
        self._tables = fingerprint(opening.tables)
        self._breaker = Breaker(time.monotonic, random.Random(), FAILURES)
        self._connection: socket.socket | None = None
        self._asked = False

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def open(self, patience: float) -> None:
        """Wait until it has the tables; errors as in `ShardedTables.open`."""
        reached = time.monotonic()
        while True:
            try:
                answer = self._call(Frame(Says.OPEN, self._tables, self._opening.encoded()), time.monotonic() + patience)
                reached = time.monotonic()
            except (OSError, ValueError) as error:
                self.close()
                if time.monotonic() - reached > patience:
                    raise StorageError(f"{self._name} cannot be reached ({error}). Start it, or name its address.") from error
                answer = None
            if answer is not None and answer.says is Says.READY:
                return
            if answer is not None and answer.says is not Says.LOADING:
                raise self._refused(answer)
            time.sleep(_LOOK_SECONDS)

    def ask(self, question: _Question, until: float) -> None:
        """Send a question whose answer `answer` will take; what fails is tried again there."""
        self._asked = False
        if self._breaker.ready():
            try:
                self._send(Frame(Says.LOOK_UP, self._tables, question.body), until)
                self._asked = True
            except OSError:
                self.close()

    def answer(self, question: _Question, until: float) -> Vectors:
        """The numbers of the vectors that were asked for; errors as in `ShardedTables.rows`."""
        if not self._breaker.ready():
            raise StorageError(f"{self._name} failed or was late {FAILURES} times in a row and is not asked for a while.")
        try:
            answer = self._answered(Frame(Says.LOOK_UP, self._tables, question.body), until)
            if answer.says is Says.ROWS and len(answer.body) != 4 * question.numbers:
                raise ValueError(f"{len(answer.body)} bytes instead of {4 * question.numbers}")
        except (OSError, ValueError) as error:
            self.close()
            self._breaker.failed()
            raise StorageError(f"{self._name} does not answer ({error or type(error).__name__}).") from error
        self._breaker.succeeded()
        if answer.says is Says.LOADING:
            self._begin_loading(until)
            raise StorageError(f"{self._name} was started anew and loads its tables.")
        if answer.says is not Says.ROWS:
            raise self._refused(answer)
        return np.frombuffer(answer.body, "<f4")

    def _answered(self, question: Frame, until: float) -> Frame:
        """The answer to what was sent; once more over a new connection where the old one broke."""
        if self._asked:
            try:
                return self._received(until)
            except TimeoutError:
                raise
            except OSError:
                self.close()
        return self._call(question, until)

    def _begin_loading(self, until: float) -> None:
        try:
            answer = self._call(Frame(Says.OPEN, self._tables, self._opening.encoded()), until)
        except (OSError, ValueError):
            self.close()
        else:
            if answer.says is Says.REFUSED:
                raise self._refused(answer)

    def _call(self, frame: Frame, until: float) -> Frame:
        self._send(frame, until)
        return self._received(until)

    def _send(self, frame: Frame, until: float) -> None:
        if self._connection is None:
            self._connection = connect(self._address, _left(until))
        self._connection.settimeout(_left(until))
        send(self._connection, frame)

    def _received(self, until: float) -> Frame:
        connection = self._connection
        assert connection is not None
        frame = receive(connection, lambda: connection.settimeout(_left(until)))
        if frame is None:
            raise ConnectionResetError("it closed the connection")
        if frame.tables != self._tables:
            raise ValueError("it answered of other tables")
        return frame

    def _refused(self, answer: Frame) -> StorageError:
        return StorageError(f"{self._name} refuses: {bytes(answer.body).decode(errors='replace')}.")


def _left(until: float) -> float:
    return max(until - time.monotonic(), _LEAST_SECONDS)
