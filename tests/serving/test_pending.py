"""A value to come reaches whoever waits, at once, with its error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mainspring.serving.pending import Pending


@pytest.mark.parametrize("early", [True, False])
def test_it_is_handed_on_the_moment_it_comes(early: bool) -> None:
    pending, seen = Pending[int](), list[Any]()
    if early:
        pending.give(3)
    made = pending.then(lambda value: value + 1)
    made.when(seen.append)
    if not early:
        assert not made.done
        pending.give(3)
    assert seen == [4]


def test_errors_pass_what_would_be_made_of_a_value() -> None:
    pending, seen = Pending[int](), list[Any]()
    pending.then(lambda value: value + 1).when(seen.append)
    pending.give(ValueError("no"))
    assert str(seen[0]) == "no"


def test_an_error_while_it_is_made_comes_in_its_place() -> None:
    pending = Pending[int]()
    made = pending.then(lambda value: value // 0)
    pending.give(1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_awaited(made))


def test_a_task_may_wait_for_it_and_be_cancelled() -> None:
    async def run() -> None:
        pending = Pending[int]()
        waiting = asyncio.ensure_future(_awaited(pending))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        pending.give(1)
        assert waiting.cancelled()

    asyncio.run(run())


@pytest.mark.parametrize("fails", [True, False])
def test_of_a_coroutine(fails: bool) -> None:
    async def coroutine() -> int:
        await asyncio.sleep(0)
        if fails:
            raise KeyError("x")
        return 7

    async def run() -> Any:
        try:
            return await Pending.of(coroutine())
        except KeyError:
            return "failed"

    assert asyncio.run(run()) == ("failed" if fails else 7)


async def _awaited(pending: Pending[int]) -> int:
    return await pending
