"""Workers: one process a shard of the online store, each a stream of its own; one that dies is started again."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from mainspring.clock import SECOND, Clock, SystemClock
from mainspring.errors import MainspringError
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.stream import POLL_SECONDS, ROWS, Stream, StreamProgress
from mainspring.spec import System
from mainspring.storage.stores import open_key_value, open_log, split_shards

_FIRST_WAIT_US = SECOND // 2
_STEADY_US = 60 * SECOND
_STOP_SECONDS = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What the workers do: ``system`` is a System as JSON; ``log`` and ``online`` are addresses, the latter says how many shards."""

    system: str
    log: str
    online: str
    dead_letters: Path
    rows: int = ROWS
    poll_seconds: float = POLL_SECONDS

    @property
    def workers(self) -> int:
        """One a shard."""
        return split_shards(self.online)[1]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker as the supervisor knows it: what its present process has done, how often it was started again."""

    number: int
    pid: int | None
    restarts: int
    progress: StreamProgress


def work(job: Job, number: int, report: Callable[[StreamProgress], None], stop: threading.Event) -> None:
    """Fold the log into shard ``number`` until ``stop`` is set.

    Raises:
        StorageError: on opening, the log or the store cannot be reached; later that is waited out.
    """
    with closing(open_log(job.log)) as log, closing(open_key_value(job.online)) as store:
        online = OnlineStore(System.from_json(job.system), store)
        letters = DeadLetters(job.dead_letters)
        Stream(online.writers[number], log, letters, SystemClock(), rows=job.rows, poll_seconds=job.poll_seconds).run(stop, report)


class Workers:
    """The processes of a job, from entering to leaving the context.

    `watch` is to be called a few times a second. A process that dies is started again after half a second, then twice as long
    each time up to ``longest_wait_us``, until one has lived for a minute. Each ends when told to, or when this process is gone.
    """

    def __init__(self, job: Job, clock: Clock, *, longest_wait_us: int = 30 * SECOND) -> None:
        self._clock = clock
        self._workers = [_Worker(job, number, longest_wait_us) for number in range(job.workers)]

    @property
    def states(self) -> list[WorkerState]:
        """The workers as last heard of."""
        return [worker.state for worker in self._workers]

    def __enter__(self) -> Workers:
        for worker in self._workers:
            worker.start(self._clock.now())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.tell_to_stop()
        for worker in self._workers:
            worker.wait()

    def watch(self) -> list[WorkerState]:
        """Take the workers' reports and start again those that died; the states then."""
        for worker in self._workers:
            worker.watch(self._clock.now())
        return self.states


@dataclass(slots=True)
class _Worker:
    job: Job
    number: int
    longest_wait_us: int
    restarts: int = 0
    wait_us: int = _FIRST_WAIT_US
    started: int = 0
    died: int | None = None
    progress: StreamProgress = field(default_factory=StreamProgress)
    _process: Any = None
    _reports: Any = None

    def start(self, now: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._reports, theirs = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_run, args=(self.job, self.number, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.started, self.died = now, None

    @property
    def state(self) -> WorkerState:
        pid = None if self._process is None or self.died is not None else self._process.pid
        return WorkerState(self.number, pid, self.restarts, self.progress)

    def watch(self, now: int) -> None:
        self._take_reports()
        if self._process.is_alive():
            if now - self.started > _STEADY_US:
                self.wait_us = _FIRST_WAIT_US
        elif self.died is None:
            self.died = now
            _log.warning("Worker %d ended with %s and is started again.", self.number, self._process.exitcode)
        elif now - self.died >= self.wait_us:
            self.restarts += 1
            self.wait_us = min(2 * self.wait_us, self.longest_wait_us)
            self._reports.close()
            self.start(now)

    def tell_to_stop(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def wait(self) -> None:
        """Until it has ended; its last report is taken."""
        if self._process is None:
            return
        self._process.join(_STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._take_reports()
        self._reports.close()

    def _take_reports(self) -> None:
        try:
            while self._reports.poll():
                self.progress = self._reports.recv()
        except (EOFError, OSError):
            return


def _run(job: Job, number: int, reports: Connection[Any, Any]) -> None:
    """What a worker's process does; an error of ours is one line."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def report(progress: StreamProgress) -> None:
        try:
            reports.send(progress)
        except OSError:
            stop.set()

    try:
        work(job, number, report, stop)
    except MainspringError as error:
        _log.error("Worker %d: %s", number, error)
        raise SystemExit(error.exit_code) from None
