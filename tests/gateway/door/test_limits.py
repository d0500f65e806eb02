from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.clock import DAY, SECOND, parse_instant
from mainspring.gateway.adapters.redis_limits import SharedLimits
from mainspring.gateway.door.limits import Exceeded, LocalLimits, Terms
from mainspring.gateway.settings import Rate

NOW = parse_instant("2024-02-29T12:00:00Z")


class Counter:
    """Local or shared limits behind one method."""

    def __init__(self, limits: LocalLimits | SharedLimits, runner: asyncio.Runner) -> None:
        self.limits, self.runner = limits, runner

    def take(self, key: str, rate: Rate, now: int) -> Exceeded | None:
        if isinstance(self.limits, LocalLimits):
            return self.limits.take(key, rate, Terms.of(rate), now)
        return self.runner.run(self.limits.take(key, rate, Terms.of(rate), now))


@pytest.fixture(params=["local", "shared"])
def counter(request):
    with asyncio.Runner() as runner:
        if request.param == "local":
            yield Counter(LocalLimits(), runner)
            return
        url = request.getfixturevalue("redis_url")

        async def begin() -> SharedLimits:
            limits = SharedLimits(url, LocalLimits())
            await limits._client.flushdb()
            return limits

        limits = runner.run(begin())
        yield Counter(limits, runner)
        assert limits.fallbacks == 0
        runner.run(limits.close())


def test_a_burst_and_then_the_rate(counter):
    rate = Rate(10.0, 5)
    taken = [counter.take("a", rate, NOW) for _ in range(7)]
    assert [one is None for one in taken] == [True] * 5 + [False] * 2
    assert taken[5].limit == "rate"
    assert taken[5].wait == pytest.approx(0.1, abs=1e-3)
    assert counter.take("b", rate, NOW) is None
    assert counter.take("a", rate, NOW + SECOND // 10 + 1000) is None
    assert counter.take("a", rate, NOW + SECOND // 10 + 1000) is not None
    assert [counter.take("a", rate, NOW + 10 * SECOND) is None for _ in range(6)] == [True] * 5 + [False]


def test_quotas_of_a_day_and_a_month(counter):
    rate = Rate(day=2, month=3)
    assert [counter.take("a", rate, NOW) is None for _ in range(3)] == [True, True, False]
    spent = counter.take("a", rate, NOW)
    assert (spent.limit, spent.wait) == ("day", 12 * 3600)
    headers = spent.refusal().headers
    assert (headers["retry-after"], headers["ratelimit"]) == ("43200", '"day";r=0;t=43200')
    april = NOW + 32 * DAY
    march = parse_instant("2024-03-01T00:00:00Z")
    assert [counter.take("a", rate, march) is None for _ in range(3)] == [True, True, False]
    assert counter.take("a", rate, march + DAY) is None
    ended = counter.take("a", rate, march + DAY)
    assert (ended.limit, ended.wait) == ("month", 30 * 86400)
    assert counter.take("a", rate, april) is None


@given(st.floats(0.5, 500), st.integers(1, 50), st.lists(st.integers(0, 300_000), max_size=200))
def test_no_stretch_of_time_holds_more_than_burst_and_rate_allow(rate, burst, gaps):
    limits, declared = LocalLimits(), Rate(rate, burst)
    now, taken = NOW, []
    for gap in gaps:
        now += gap
        if limits.take("a", declared, Terms.of(declared), now) is None:
            taken.append(now)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - begin) / SECOND * rate + 1e-3


def test_while_the_server_is_away_the_process_counts(redis_url):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        limits = SharedLimits(f"redis://127.0.0.1:{port}/0", LocalLimits())

        async def ask() -> list[bool]:
            rate = Rate(1.0, 2)
            return [await limits.take("a", rate, Terms.of(rate), NOW) is None for _ in range(3)]

        with asyncio.Runner() as runner:
            assert runner.run(ask()) == [True, True, False]
            runner.run(limits.close())
    assert limits.fallbacks == 3
