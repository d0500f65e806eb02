"""Batches that never wait: what has come in goes together, in the event loop while that is quick, else in one thread of its own."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mainspring.serving.answer import Ask

QUICK_NS = 1_000_000
"""An answer that is expected to take longer than this alone, or a batch than twice this, must not hold up the event loop."""
LONG_NS = 10_000_000
"""Nor must the rows of one request that are expected to take longer than this."""
MOST = 256
BEHIND_NS = 5_000_000
"""A server is behind when what waits beside one ask is expected to take longer than this."""
SWEEP_SECONDS = 0.005
_MARGIN = 1.5
"""What is expected to take so much less than the time that is left is begun: work that ends too late is lost."""
_MEMORY = 0.98
_SHARE = 0.1
_EXPLORE = 16

Result = Any
Held = Callable[[float, float], None]
Run = Callable[[Sequence[Ask]], Sequence[Result]]


class CostCurve:
    """What a batch of ``n`` is expected to take: a line through what batches took, newer ones counting more.

    Least squares over exponentially forgotten batches, with one batch of nothing in no time added, so that the line goes through the
    origin as long as all batches were alike.
    """

    def __init__(self) -> None:
        self._weight, self._n, self._ns, self._nn, self._nt = 1.0, 0.0, 0.0, 0.0, 0.0
        self._start = self._slope = 0.0

    @property
    def slow(self) -> bool:
        """Whether one alone may hold up others: as long as nothing is known it may."""
        return self._n == 0 or self.expect(1) > QUICK_NS

    def learn(self, n: int, ns: float) -> None:
        """A batch of ``n`` took ``ns`` nanoseconds."""
        keep = _MEMORY
        self._weight = 1.0 + (self._weight - 1.0) * keep + 1.0
        self._n, self._ns = self._n * keep + n, self._ns * keep + ns
        self._nn, self._nt = self._nn * keep + n * n, self._nt * keep + n * ns
        spread = self._nn - self._n * self._n / self._weight
        slope = (self._nt - self._n * self._ns / self._weight) / spread
        self._slope = max(slope, 0.0)
        self._start = max((self._ns - self._slope * self._n) / self._weight, 0.0)

    @property
    def worth(self) -> int:
        """The batch beyond which more rows save no more than a tenth of their cost, and only make the first ones wait."""
        return math.ceil(min(MOST, max(1.0, self._start / max(_SHARE * self._slope, 1e-9)))) if self._n else 1

    def expect(self, n: int) -> float:
        """Nanoseconds that a batch of ``n`` is expected to take."""
        return self._start + self._slope * n


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Asks of one request, all alike."""

    asks: Sequence[Ask]
    future: asyncio.Future[list[Result]]

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
    """

    def __init__(self, run: Run, run_late: Run, held: Held | None = None) -> None:
        """``held`` is told from when to when, in seconds of ``time.perf_counter``, a batch had the event loop to itself."""
        self._run, self._run_late, self._held = run, run_late, held
        self._waiting: deque[_Group] = deque()
        self._running: list[_Group] = []
        self._costs = {False: CostCurve(), True: CostCurve()}
        self._number = itertools.count()
        self.behind = False
        self._until_ns = 0
        self._planned = False
        self._thread: ThreadPoolExecutor | None = None

    def expected_wait_ns(self, rows: int = 1, explain: bool = False) -> float:
        """How long so many rows that came now would wait for their turn to end."""
        return (self._remaining() if self._running else 0) + self._expected(rows, explain)

    def _expected(self, rows: int = 0, explain: bool = False) -> float:
        """What the asks that wait, and so many more rows, are expected to take."""
        waiting = {False: 0, True: 0}
        for group in self._waiting:
            waiting[group.explain] += len(group.asks)
        waiting[explain] += rows
        return sum(self._costs[kind].expect(n) for kind, n in waiting.items() if n)

    def _remaining(self) -> float:
        """Nanoseconds that the running batch still takes; one that is over its time, as long again as it is over."""
        return abs(self._until_ns - time.perf_counter_ns())

    def submit(self, asks: Sequence[Ask]) -> asyncio.Future[list[Result]]:
        """The answers to come to the asks of one request, all with one deadline, or the errors that stand in their places."""
        loop = asyncio.get_running_loop()
        group = _Group(asks, loop.create_future())
        if self._running and _too_late(self.expected_wait_ns(len(asks), group.explain), group.deadline_ns):
            self._answer_late([group])
            return group.future
        self._waiting.append(group)
        if not self._running:
            self._plan(loop)
        return group.future

    def close(self) -> None:
        """End the thread, when what runs in it is done."""
        if self._thread is not None:
            self._thread.shutdown()

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._planned:
            self._planned = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        self._planned = False
        self._sweep_waiting()
        if self._running or not self._waiting:
            return
        loop, waiting = asyncio.get_running_loop(), self._expected()
        batch = self._take()
        cost = self._costs[batch[0].explain]
        self.behind = waiting - cost.expect(_rows(batch[:1])) > BEHIND_NS
        if not cost.slow and cost.expect(_rows(batch)) < LONG_NS:
            results, ns = self._timed(batch)
            self._finish(batch, results, ns)
            if self._held is not None:
                ended = time.perf_counter()
                self._held(ended - ns / 1e9, ended)
            if self._waiting:
                self._plan(loop)
            return
        self._running, self._until_ns = batch, time.perf_counter_ns() + int(cost.expect(_rows(batch)))
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="batches")
        task = loop.run_in_executor(self._thread, self._timed, batch)
        task.add_done_callback(lambda done: self._done(batch, *done.result()))
        loop.call_later(SWEEP_SECONDS, self._sweep)

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
        return batch

    def _timed(self, batch: Sequence[_Group]) -> tuple[Sequence[Result] | Exception, int]:
        started = time.perf_counter_ns()
        try:
            results: Sequence[Result] | Exception = self._run([ask for group in batch for ask in group.asks])
        except Exception as error:
            results = error
        return results, time.perf_counter_ns() - started

    def _done(self, batch: list[_Group], results: Sequence[Result] | Exception, ns: int) -> None:
        self._running = []
        self._finish(batch, results, ns)
        self._next()

    def _finish(self, batch: list[_Group], results: Sequence[Result] | Exception, ns: int) -> None:
        self._costs[batch[0].explain].learn(_rows(batch), ns)
        _give(batch, results)

    def _sweep(self) -> None:
        """Answer, while a batch runs, what has passed its deadline or will."""
        if not self._running:
            return
        self._sweep_waiting()
        now = time.perf_counter_ns()
        self._answer_late([group for group in self._running if group.deadline_ns < now and not group.future.done()])
        asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep_waiting(self) -> None:
        """Answer what would be too late; while nothing runs not the newest, from which is learnt what an answer takes by now."""
        late = [group for group in self._waiting if self._is_late(group)]
        if late and not self._running and len(late) == len(self._waiting) and late[-1].deadline_ns > time.perf_counter_ns():
            late.pop()
        if late:
            gone = set(map(id, late))
            self._waiting = deque([group for group in self._waiting if id(group) not in gone])
            self._answer_late(late)

    def _is_late(self, group: _Group) -> bool:
        """Whether it could not be answered in time even if its turn were now."""
        cost = self._costs[group.explain]
        return _too_late(cost.expect(len(group.asks)) if cost.slow else 0.0, group.deadline_ns)

    def _answer_late(self, late: Sequence[_Group]) -> None:
        if not late:
            return
        try:
            results: Sequence[Result] | Exception = self._run_late([ask for group in late for ask in group.asks])
        except Exception as error:
            results = error
        _give(late, results)


def _too_late(expected_ns: float, deadline_ns: int) -> bool:
    return time.perf_counter_ns() + _MARGIN * expected_ns > deadline_ns


def _rows(batch: Sequence[_Group]) -> int:
    return sum(len(group.asks) for group in batch)


def _give(batch: Sequence[_Group], results: Sequence[Result] | Exception) -> None:
    place = 0
    for group in batch:
        n = len(group.asks)
        if not group.future.done():
            group.future.set_result([results] * n if isinstance(results, Exception) else list(results[place : place + n]))
        place += n
