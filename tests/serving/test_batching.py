"""Batches never wait, stay quick in the event loop, and keep deadlines in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from mainspring.errors import ServingError
from mainspring.serving.answer import Ask
from mainspring.serving.batching import Batcher
from mainspring.serving.costs import MOST, CostCurve

MS = 1_000_000


def ask(name: str, *, within_ms: float = 10_000, explain: bool = False) -> Ask:
    now = time.perf_counter_ns()
    return Ask(name, {}, explain, now, now + int(within_ms * MS))


class Model:
    """Takes a fixed time a batch and one a row, and remembers what it was asked."""

    def __init__(self, start_ms: float = 0, row_ms: float = 0) -> None:
        self.start_ms, self.row_ms = start_ms, row_ms
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.at_once = 0

    def answer(self, asks: Sequence[Ask]) -> list[Any]:
        self.at_once += 1
        assert self.at_once == 1
        self.threads.add(threading.get_ident())
        self.batches.append([one.request_id for one in asks])
        if self.start_ms or self.row_ms:
            time.sleep((self.start_ms + self.row_ms * len(asks)) / 1e3)
        self.at_once -= 1
        return [one.request_id if one.claim() else None for one in asks]

    def late(self, asks: Sequence[Ask]) -> list[Any]:
        return [ServingError(f"{one.request_id} is late") if one.claim() else None for one in asks]


def batcher(model: Model) -> Batcher:
    return Batcher(model.answer, model.late)


async def learn(batches: Batcher, times: int = 3) -> None:
    for number in range(times):
        await batches.submit([ask(f"learn{number}")])


def test_what_comes_together_goes_together_and_in_the_loop_when_quick() -> None:
    model = Model()

    async def run() -> list[list[Any]]:
        batches = batcher(model)
        await learn(batches)
        model.batches.clear()
        model.threads.clear()
        return await asyncio.gather(*[batches.submit([ask(f"r{number}")]) for number in range(20)])

    assert asyncio.run(run()) == [[f"r{number}"] for number in range(20)]
    assert model.batches == [[f"r{number}" for number in range(20)]]
    assert model.threads == {threading.get_ident()}


def test_a_lone_request_does_not_wait() -> None:
    model = Model()

    async def run() -> float:
        batches = batcher(model)
        await learn(batches)
        took = []
        for number in range(200):
            started = time.perf_counter_ns()
            await batches.submit([ask(f"r{number}")])
            took.append(time.perf_counter_ns() - started)
        return sorted(took)[100] / MS

    assert asyncio.run(run()) < 1
    assert all(len(batch) == 1 for batch in model.batches)


def test_a_slow_model_leaves_the_loop_free() -> None:
    model = Model(row_ms=50)

    async def run() -> int:
        batches, ticks = batcher(model), 0
        future = batches.submit([ask("slow")])
        while not future.done:
            await asyncio.sleep(0.001)
            ticks += 1
        batches.close()
        return ticks

    assert asyncio.run(run()) > 10
    assert threading.get_ident() not in model.threads


def test_while_a_batch_runs_the_next_one_gathers() -> None:
    model = Model(start_ms=20)

    async def run() -> None:
        batches = batcher(model)
        await learn(batches, 5)
        await asyncio.gather(*[batches.submit([ask(f"x{number}")]) for number in range(8)])
        for burst in range(6):
            await asyncio.gather(*[batches.submit([ask(f"b{burst}:{number}")]) for number in range(32)])
        batches.close()

    asyncio.run(run())
    assert max(len(batch) for batch in model.batches[-8:]) >= 16, "a start that costs much is shared by many"


def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    model = Model(row_ms=20)

    async def run() -> tuple[list[Any], float]:
        batches = batcher(model)
        await learn(batches)
        asks = [ask(f"r{number}", within_ms=250) for number in range(64)]
        futures = [batches.submit([asks[0]])]
        await asyncio.sleep(0.002)
        started = time.perf_counter_ns()
        futures += [batches.submit([one]) for one in asks[1:]]
        refused = [future for future in futures if future.done]
        took = (time.perf_counter_ns() - started) / MS
        assert len(refused) > 40
        answers = [answer for (answer,) in await asyncio.gather(*futures)]
        batches.close()
        return answers, took

    answers, took = asyncio.run(run())
    assert took < 50
    answered = [answer for answer in answers if isinstance(answer, str)]
    assert 6 <= len(answered) <= 13, "some twelve of 20 ms fit into 250 ms"


def test_a_model_that_hangs_is_overtaken_at_the_deadline() -> None:
    model = Model(row_ms=400)

    async def run() -> tuple[list[Any], float]:
        batches = batcher(model)
        started = time.perf_counter_ns()
        answers = await asyncio.gather(*[batches.submit([ask(f"r{number}", within_ms=50)]) for number in range(3)])
        took = (time.perf_counter_ns() - started) / MS
        batches.close()
        return [answer for (answer,) in answers], took

    answers, took = asyncio.run(run())
    assert all(isinstance(answer, ServingError) for answer in answers)
    assert took < 150


def test_an_error_of_the_whole_batch_reaches_each_of_it() -> None:
    def fails(asks: Sequence[Ask]) -> list[Any]:
        raise ZeroDivisionError(asks[0].request_id)

    async def run() -> list[list[Any]]:
        batches = Batcher(fails, fails)
        return await asyncio.gather(batches.submit([ask("a"), ask("b")]), batches.submit([ask("c")]))

    (first, second), (third,) = asyncio.run(run())
    assert all(isinstance(one, ZeroDivisionError) for one in (first, second, third))


def test_rows_of_one_request_stay_together() -> None:
    model = Model()

    async def run() -> list[Any]:
        batches = batcher(model)
        return await batches.submit([ask(f"r{number}") for number in range(MOST + 10)])

    assert asyncio.run(run()) == [f"r{number}" for number in range(MOST + 10)]
    assert len(model.batches) == 1


def test_asks_with_and_without_reasons_are_not_mixed() -> None:
    model = Model()

    async def run() -> None:
        batches = batcher(model)
        await asyncio.gather(*[batches.submit([ask(f"{number % 2}", explain=number % 2 == 1)]) for number in range(6)])
        batches.close()

    asyncio.run(run())
    assert all(len(set(batch)) == 1 for batch in model.batches)


@pytest.mark.parametrize(("start", "slope"), [(0, 5), (100, 5), (1_000, 0), (50, 50)])
def test_the_curve_finds_a_line(start: int, slope: int) -> None:
    curve = CostCurve()
    for number in range(300):
        n = (1, 4, 16, 64)[number % 4]
        curve.learn(n, (start + slope * n) * 1_000)
    for n in (1, 16, 64):
        assert curve.expect(n) == pytest.approx((start + slope * n) * 1_000, rel=0.1, abs=3_000)


def test_the_curve_follows_a_change() -> None:
    curve = CostCurve()
    for _ in range(100):
        curve.learn(1, 1_000)
    for _ in range(200):
        curve.learn(1, 9_000)
    assert curve.expect(1) == pytest.approx(9_000, rel=0.15)
    assert curve.worth < 10


def test_a_batch_that_is_over_its_time_is_expected_to_take_as_long_again() -> None:
    """What comes while a model hangs does not wait for its own deadline to see that."""
    model = Model(row_ms=2)

    async def run() -> tuple[list[Any], float]:
        batches = batcher(model)
        await learn(batches)
        model.row_ms = 400
        hanging = batches.submit([ask("hanging", within_ms=100)])
        await asyncio.sleep(0.15)
        started = time.perf_counter()
        (answer,) = await batches.submit([ask("next", within_ms=100)])
        took = time.perf_counter() - started
        await hanging
        batches.close()
        return answer, took

    answer, took = asyncio.run(run())
    assert str(answer) == "next is late"
    assert took < 0.05


def test_it_is_behind_when_more_waits_than_can_be_answered_soon() -> None:
    model, seen = Model(row_ms=3), []

    async def run() -> None:
        batches = Batcher(lambda asks: [seen.append(batches.behind), model.answer(asks)][1], model.late)
        await learn(batches)
        await batches.submit([ask("alone")])
        assert not any(seen)
        await asyncio.gather(*[batches.submit([ask(f"r{number}")]) for number in range(8)])
        batches.close()

    asyncio.run(run())
    assert seen[4]
    assert not seen[-1], "the last one is alone again"


def test_a_model_that_was_far_too_slow_is_asked_again_and_found_quick() -> None:
    model = Model(row_ms=300)

    async def run() -> list[Any]:
        batches = batcher(model)
        await learn(batches, 2)
        model.row_ms = 2
        answers = [(await batches.submit([ask(f"r{number}", within_ms=100)]))[0] for number in range(40)]
        batches.close()
        return answers

    assert asyncio.run(run()) == [f"r{number}" for number in range(40)]
