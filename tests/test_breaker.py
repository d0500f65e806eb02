"""A breaker with a clock that is moved by hand."""

from __future__ import annotations

import random

from mainspring.breaker import Breaker


def test_the_breaker_waits_longer_each_time_and_forgets_on_success() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0], random.Random(1))
    waits = []
    for _ in range(12):
        assert breaker.ready()
        breaker.failed()
        begin = now[0]
        while not breaker.ready():
            now[0] += 0.01
        waits.append(now[0] - begin)
    assert 0.25 <= waits[0] <= 0.76
    assert 1.0 <= waits[2] <= 3.01
    assert 30.0 <= waits[-1] <= 90.01
    assert len({round(wait, 2) for wait in waits[-4:]}) > 1
    breaker.succeeded()
    breaker.failed()
    assert breaker._until - now[0] <= 0.76


def test_it_opens_only_after_so_many_failures_in_a_row_and_then_lets_probes_through() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0], random.Random(1), after=3)
    for answer in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        answer()
        assert breaker.ready()
    breaker.failed()
    assert breaker.open
    assert not breaker.ready()
    now[0] += 0.75
    assert breaker.ready()
    assert breaker.open, "a probe does not close it"
    breaker.failed()
    now[0] += 0.49
    assert not breaker.ready(), "the second while is twice as long"
    now[0] += 1.01
    assert breaker.ready()
    breaker.succeeded()
    assert not breaker.open
