"""The stream processor: follows an event log and folds it into the online store, for as long as it is let."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mainspring.clock import Clock
from mainspring.errors import DataError, StorageError
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.online_writer import OnlineWriter
from mainspring.schema import KNOWN_TIME
from mainspring.storage.log import Frame, Log, pieces

ROWS = 10_000
POLL_SECONDS = 0.05
REPORT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """What a stream has done since it began, and where it stands.

    ``events`` of the log were passed in ``transactions``; ``dead_letters`` frames were left out; ``failures`` times the log or the
    store failed and was tried again. ``lag`` is how much of the log, in its own measure, lies beyond ``offset``, None while that
    cannot be asked. ``newest_known`` is the latest known time applied, an instant; None before the first.
    """

    offset: int = 0
    events: int = 0
    transactions: int = 0
    dead_letters: int = 0
    failures: int = 0
    lag: int | None = None
    newest_known: int | None = None

    def freshness_us(self, now: int) -> int | None:
        """How old the newest knowledge in the store is at ``now``, in microseconds."""
        return None if self.newest_known is None else now - self.newest_known


class Stream:
    """One writer of an online store, or of one of its shards.

    It pulls: some ``rows`` events, in one transaction, are in memory beside one frame of the log. Events that do not fit
    the declaration become dead letters, and the offset moves past them. A log or a store that fails is tried again, after
    a wait that doubles up to 5 s, and the lag grows; so is a damaged entry of the log, which no one may pass over unseen.

    Args:
        online: where the events go.
        log: where they come from.
        dead_letters: where those go that do not fit.
        clock: tells when a letter died.
        rows: events of one transaction, of which a shard's share counts: a worker of ``n`` reads ``n`` times as many of the log.
        poll_seconds: wait between looks at the end of the log.
    """

    def __init__(
        self,
        online: OnlineStore | OnlineWriter,
        log: Log,
        dead_letters: DeadLetters,
        clock: Clock,
        *,
        rows: int = ROWS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._online = online
        self._log = log
        self._dead_letters = dead_letters
        self._clock = clock
        self._rows = rows * (online.shards if isinstance(online, OnlineWriter) else 1)
        self._poll_seconds = poll_seconds
        self._done = StreamProgress()
        self._asked = 0.0

    def run(self, stop: threading.Event, report: Callable[[StreamProgress], None] | None = None) -> None:
        """Follow the log until ``stop`` is set; a transaction that has begun is finished. ``report`` is called twice a second."""
        wait = self._poll_seconds
        while not stop.is_set():
            try:
                self.step(stop, report)
                wait = self._poll_seconds
            except StorageError as error:
                wait = min(max(2 * wait, 0.1), _LONGEST_WAIT_SECONDS)
                self._done = replace(self._done, failures=self._done.failures + 1, lag=None)
                _log.warning("The stream failed and tries again in %.1f s: %s", wait, error)
            self._report(report)
            stop.wait(wait)
        self._report(report, last=True)

    def step(self, stop: threading.Event | None = None, report: Callable[[StreamProgress], None] | None = None) -> StreamProgress:
        """Apply what the log holds now, or until ``stop`` is set; where the stream stands then.

        Raises:
            StorageError: the log or the store fails, or an entry of the log is damaged; what was applied stays applied.
        """
        for piece in pieces(self._log.read(self._online.reached(self._log)), self._rows):
            self._apply(piece)
            self._report(report)
            if stop is not None and stop.is_set():
                break
        return self.progress()

    def progress(self) -> StreamProgress:
        """Where the stream stands."""
        try:
            offset = self._online.reached(self._log)
            self._done = replace(self._done, offset=offset, lag=self._log.behind(offset))
        except StorageError:
            self._done = replace(self._done, lag=None)
        return self._done

    def _apply(self, piece: list[Frame]) -> None:
        done = self._done
        try:
            self._online.apply_frames(piece)
        except DataError as error:
            if len(piece) > 1:
                for one in piece:
                    self._apply([one])
                return
            _log.warning("Dead letter: %s", error)
            self._dead_letters.add(piece[0], str(error), self._clock.now())
            self._online.skip(piece[0])
            self._done = replace(done, dead_letters=done.dead_letters + 1)
            return
        self._done = replace(
            done,
            events=done.events + sum(frame.batch.num_rows for frame in piece),
            transactions=done.transactions + 1,
            newest_known=max((one for one in (done.newest_known, *map(_newest_known, piece)) if one is not None), default=None),
        )

    def _report(self, report: Callable[[StreamProgress], None] | None, *, last: bool = False) -> None:
        if report is not None and (last or time.monotonic() - self._asked >= REPORT_SECONDS):
            self._asked = time.monotonic()
            report(self.progress())


def _newest_known(frame: Frame) -> int | None:
    import pyarrow.compute as pc

    if frame.batch.schema.get_field_index(KNOWN_TIME) < 0:
        return None
    newest: int | None = pc.max(frame.batch.column(KNOWN_TIME)).as_py()
    return newest
