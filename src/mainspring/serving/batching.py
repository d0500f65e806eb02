"""Batches that never wait: what has come in goes together, in the event loop while that is quick, else in one thread of its own."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mainspring.serving.answer import Ask
from mainspring.serving.costs import MOST, QUICK_NS, CostCurve
from mainspring.serving.pending import Pending

LONG_NS = 10_000_000
"""The rows of one request that are expected to take longer than this must not hold up the event loop, quick as each may be."""
BEHIND_NS = 5_000_000
"""A server is behind when what waits beside one ask is expected to take longer than this."""
SWEEP_SECONDS = 0.005
_MARGIN = 1.5
"""What is expected to take so much less than the time that is left is begun: work that ends too late is lost."""
_EXPLORE = 16

Result = Any
Held = Callable[[float, float], None]
Run = Callable[[Sequence[Ask]], Sequence[Result]]


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Asks of one request, all alike."""

    asks: Sequence[Ask]
    answers: Pending[list[Result]]

    @property
    def explain(self) -> bool:
        return self.asks[0].explain

    @property
    def deadline_ns(self) -> int:
        return self.asks[0].deadline_ns


class Batcher:
    """Gathers asks in the event loop that it is used in, and answers them with ``run``.

    Whatever is there when the last batch is done goes as the next one: no ask waits for others to come. An ask whose turn is expected to
    end after its deadline, or that is not answered by it, gets what ``run_late`` answers at once. ``run`` is never called twice at a time;
    meanwhile ``behind`` says whether more was there than can be answered soon.

    The thread takes the next batch itself as long as what waits is slow: it does not wait for an event loop that is busy with late asks.
    """

    def __init__(self, run: Run, run_late: Run, held: Held | None = None) -> None:
        """``held`` is told from when to when, in seconds of ``time.perf_counter``, a batch had the event loop to itself."""
        self._run, self._run_late, self._held = run, run_late, held
        self._lock = threading.Lock()
        self._waiting: deque[_Group] = deque()
        self._running: list[_Group] = []
        self._costs = {False: CostCurve(), True: CostCurve()}
        self._number = itertools.count()
        self.behind = False
        self._until_ns = 0
        self._planned = self._threaded = False
        self._thread: ThreadPoolExecutor | None = None

    def expected_wait_ns(self, rows: int = 1, explain: bool = False) -> float:
        """How long so many rows that came now would wait for their turn to end."""
        return (self._remaining() if self._running else 0) + self._expected(rows, explain)

    def submit(self, asks: Sequence[Ask]) -> Pending[list[Result]]:
        """The answers to come to the asks of one request, all with one deadline, or the errors that stand in their places."""
        group = _Group(asks, Pending())
        with self._lock:
            in_time = not (self._running and _too_late(self.expected_wait_ns(len(asks), group.explain), group.deadline_ns))
            if in_time:
                self._waiting.append(group)
        if not in_time:
            self._answer_late([group])
        elif not self._threaded:
            self._plan(asyncio.get_running_loop())
        return group.answers

    def close(self) -> None:
        """End the thread, when what runs in it is done."""
        if self._thread is not None:
            self._thread.shutdown()

    def _expected(self, rows: int = 0, explain: bool = False) -> float:
        """What the asks that wait, and so many more rows, are expected to take."""
        if not self._waiting:
            return self._costs[explain].expect(rows) if rows else 0.0
        waiting = {False: 0, True: 0}
        for group in self._waiting:
            waiting[group.explain] += len(group.asks)
        waiting[explain] += rows
        return sum(self._costs[kind].expect(n) for kind, n in waiting.items() if n)

    def _remaining(self) -> float:
        """Nanoseconds that the running batch still takes; one that is over its time, as long again as it is over."""
        return abs(self._until_ns - time.perf_counter_ns())

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._planned:
            self._planned = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        """Answer what waits: here if that is quick, else in the thread."""
        self._planned = False
        loop = asyncio.get_running_loop()
        with self._lock:
            late = self._overdue()
            working = self._threaded
            self._threaded = working or (bool(self._waiting) and self._is_slow())
            batch = [] if self._threaded or not self._waiting else self._take()
        self._answer_late(late)
        if self._threaded and not working:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="batches")
            self._thread.submit(self._work, loop)
            loop.call_later(SWEEP_SECONDS, self._sweep)
        if not batch:
            return
        results, ns = self._timed(batch)
        _give(batch, results)
        if self._held is not None:
            ended = time.perf_counter()
            self._held(ended - ns / 1e9, ended)
        if self._waiting:
            self._plan(loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: one slow batch after another, as long as there are any."""
        while True:
            with self._lock:
                late = self._overdue()
                self._threaded = bool(self._waiting) and self._is_slow()
                batch = self._take() if self._threaded else []
                self._running, self._until_ns = batch, time.perf_counter_ns() + int(self._costs[_kind(batch)].expect(_rows(batch)))
            _tell(loop, self._answer_late, late)
            if not batch:
                _tell(loop, self._plan, loop)
                return
            results, _ = self._timed(batch)
            with self._lock:
                self._running = []
            _tell(loop, _give, batch, results)

    def _is_slow(self) -> bool:
        """Whether what is at the head of the queue would hold up the event loop."""
        head = self._waiting[0]
        cost = self._costs[head.explain]
        return cost.slow or cost.expect(len(head.asks)) >= LONG_NS

    def _take(self) -> list[_Group]:
        """From the head of the queue, of one kind, as many as are quick, else as are worth it and can be answered by the earliest deadline.

        Now and then more than are worth it: whether they are is learnt from batches of all sizes.
        """
        explain = self._waiting[0].explain
        cost = self._costs[explain]
        most = MOST if next(self._number) % _EXPLORE == _EXPLORE - 1 else cost.worth
        batch: list[_Group] = []
        rows, earliest = 0, self._waiting[0].deadline_ns
        while self._waiting and rows < MOST and self._waiting[0].explain == explain:
            group = self._waiting[0]
            earliest = min(earliest, group.deadline_ns)
            expected = cost.expect(rows + len(group.asks))
            if batch and (rows >= most or _too_late(expected, earliest) if cost.slow else expected > 2 * QUICK_NS):
                break
            batch.append(self._waiting.popleft())
            rows += len(group.asks)
        self.behind = self._expected() + cost.expect(rows) - cost.expect(len(batch[0].asks)) > BEHIND_NS
        return batch

    def _timed(self, batch: Sequence[_Group]) -> tuple[Sequence[Result] | Exception, int]:
        started = time.perf_counter_ns()
        try:
            results: Sequence[Result] | Exception = self._run([ask for group in batch for ask in group.asks])
        except Exception as error:
            results = error
        ns = time.perf_counter_ns() - started
        with self._lock:
            self._costs[_kind(batch)].learn(_rows(batch), ns)
        return results, ns

    def _sweep(self) -> None:
        """Answer, while the thread works, what has passed its deadline or will."""
        if not self._threaded:
            return
        with self._lock:
            late = self._overdue()
        self._answer_late(late)
        now = time.perf_counter_ns()
        self._answer_late([group for group in self._running if group.deadline_ns < now and not group.answers.done])
        asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _overdue(self) -> list[_Group]:
        """Takes out what would be too late; while nothing runs not the newest, from which is learnt what an answer takes by now."""
        now = time.perf_counter_ns()
        late = [group for group in self._waiting if group.deadline_ns < now + self._margin(group)]
        if late and not self._running and len(late) == len(self._waiting) and late[-1].deadline_ns > now:
            late.pop()
        if late:
            gone = set(map(id, late))
            self._waiting = deque([group for group in self._waiting if id(group) not in gone])
        return late

    def _margin(self, group: _Group) -> float:
        """Nanoseconds that are too few for it, even if its turn were now."""
        cost = self._costs[group.explain]
        return _MARGIN * cost.expect(len(group.asks)) if cost.slow else 0.0

    def _answer_late(self, late: Sequence[_Group]) -> None:
        if not late:
            return
        try:
            results: Sequence[Result] | Exception = self._run_late([ask for group in late for ask in group.asks])
        except Exception as error:
            results = error
        _give(late, results)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    """Call in the loop, unless it is gone: then nobody waits any more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)


def _kind(batch: Sequence[_Group]) -> bool:
    return bool(batch) and batch[0].explain


def _too_late(expected_ns: float, deadline_ns: int) -> bool:
    return time.perf_counter_ns() + _MARGIN * expected_ns > deadline_ns


def _rows(batch: Sequence[_Group]) -> int:
    return sum(len(group.asks) for group in batch)


def _give(batch: Sequence[_Group], results: Sequence[Result] | Exception) -> None:
    place = 0
    for group in batch:
        n = len(group.asks)
        if not group.answers.done:
            group.answers.give([results] * n if isinstance(results, Exception) else list(results[place : place + n]))
        place += n
