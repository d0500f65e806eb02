"""Batches that never wait: what has come in goes together, in the event loop while that is quick, else in one thread of its own."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mainspring.serving.answer import Ask

QUICK_NS = 1_000_000
"""An answer that is expected to take longer than this alone, or a batch than twice this, must not hold up the event loop."""
MOST = 256
SWEEP_SECONDS = 0.005
_MEMORY = 0.98
_SHARE = 0.1
_EXPLORE = 16

Result = Any
Run = Callable[[Sequence[Ask]], list[Result]]


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
        return math.ceil(min(MOST, max(1.0, self._start / max(_SHARE * self._slope, 1e-9))))

    def expect(self, n: int) -> float:
        """Nanoseconds that a batch of ``n`` is expected to take."""
        return self._start + self._slope * n


class Batcher:
    """Gathers asks in the event loop that it is used in, and answers them with ``run``.

    Whatever is there when the last batch is done goes as the next one: no ask waits for others to come. An ask whose turn is expected to
    end after its deadline, or that is not answered by it, gets what ``run_late`` answers at once. ``run`` is never called twice at a time.
    """

    def __init__(self, run: Run, run_late: Run) -> None:
        self._run, self._run_late = run, run_late
        self._waiting: deque[tuple[Ask, asyncio.Future[Result]]] = deque()
        self._running: list[tuple[Ask, asyncio.Future[Result]]] = []
        self._costs = {False: CostCurve(), True: CostCurve()}
        self._number = itertools.count()
        self._until_ns = 0
        self._planned = False
        self._thread: ThreadPoolExecutor | None = None

    def expected_wait_ns(self) -> float:
        """How long an ask that came now would wait for its turn to end."""
        begun = max(self._until_ns - time.perf_counter_ns(), 0) if self._running else 0
        explained = sum(ask.explain for ask, _ in self._waiting)
        return begun + self._costs[True].expect(explained) + self._costs[False].expect(len(self._waiting) - explained + 1)

    def submit(self, ask: Ask) -> asyncio.Future[Result]:
        """The answer to come, or the error that `Run` gives in its place."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if self._running and time.perf_counter_ns() + self.expected_wait_ns() > ask.deadline_ns:
            self._answer_late([(ask, future)])
            return future
        self._waiting.append((ask, future))
        if not self._running and not self._planned:
            self._planned = True
            loop.call_soon(self._next)
        return future

    def close(self) -> None:
        """End the thread, when what runs in it is done."""
        if self._thread is not None:
            self._thread.shutdown()

    def _next(self) -> None:
        self._planned = False
        self._sweep_waiting()
        if self._running or not self._waiting:
            return
        batch = self._take()
        cost = self._costs[batch[0][0].explain]
        if not cost.slow:
            self._finish(batch, *self._timed([ask for ask, _ in batch]))
            if self._waiting:
                self._planned = True
                asyncio.get_running_loop().call_soon(self._next)
            return
        self._running, self._until_ns = batch, time.perf_counter_ns() + int(cost.expect(len(batch)))
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="batches")
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._thread, self._timed, [ask for ask, _ in batch])
        task.add_done_callback(lambda done: self._done(batch, *done.result()))
        loop.call_later(SWEEP_SECONDS, self._sweep)

    def _take(self) -> list[tuple[Ask, asyncio.Future[Result]]]:
        """From the head of the queue, of one kind, as many as are quick, else as are worth it and can be answered by the earliest deadline.

        Now and then more than are worth it: whether they are is learnt from batches of all sizes.
        """
        explain = self._waiting[0][0].explain
        cost, now = self._costs[explain], time.perf_counter_ns()
        most = cost.worth if next(self._number) % _EXPLORE else MOST
        batch: list[tuple[Ask, asyncio.Future[Result]]] = []
        earliest = self._waiting[0][0].deadline_ns
        while self._waiting and len(batch) < MOST and self._waiting[0][0].explain == explain:
            earliest = min(earliest, self._waiting[0][0].deadline_ns)
            expected = cost.expect(len(batch) + 1)
            enough = len(batch) >= most or now + expected > earliest if cost.slow else expected > 2 * QUICK_NS
            if batch and enough:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _timed(self, asks: Sequence[Ask]) -> tuple[list[Result] | Exception, int]:
        started = time.perf_counter_ns()
        try:
            results: list[Result] | Exception = self._run(asks)
        except Exception as error:
            results = error
        return results, time.perf_counter_ns() - started

    def _done(self, batch: list[tuple[Ask, asyncio.Future[Result]]], results: list[Result] | Exception, ns: int) -> None:
        self._running = []
        self._finish(batch, results, ns)
        self._next()

    def _finish(self, batch: list[tuple[Ask, asyncio.Future[Result]]], results: list[Result] | Exception, ns: int) -> None:
        self._costs[batch[0][0].explain].learn(len(batch), ns)
        for (_, future), result in zip(batch, [results] * len(batch) if isinstance(results, Exception) else results, strict=True):
            if not future.done():
                future.set_result(result)

    def _sweep(self) -> None:
        """Answer, while a batch runs, what has passed its deadline."""
        if not self._running:
            return
        self._sweep_waiting()
        now = time.perf_counter_ns()
        self._answer_late([(ask, future) for ask, future in self._running if ask.deadline_ns < now and not future.done()])
        asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep_waiting(self) -> None:
        now = time.perf_counter_ns()
        late = [one for one in self._waiting if one[0].deadline_ns < now or one[1].done()]
        if late:
            self._waiting = deque([one for one in self._waiting if one not in late])
            self._answer_late([one for one in late if not one[1].done()])

    def _answer_late(self, late: Sequence[tuple[Ask, asyncio.Future[Result]]]) -> None:
        if not late:
            return
        try:
            results = self._run_late([ask for ask, _ in late])
        except Exception as error:
            results = [error] * len(late)
        for (_, future), result in zip(late, results, strict=True):
            future.set_result(result)
