"""A store that fails is left alone for a while: its readers get declared defaults at once."""

from __future__ import annotations

import random
from collections.abc import Sequence

from delivery import NOW, system
from mainspring.breaker import Breaker
from mainspring.errors import StorageError
from mainspring.feature_store.online import OnlineStore
from mainspring.schema import Status

ROW = {"drive": "x", "sent_at": NOW, "depot": "north", "km": 1.0}


class Store:
    """Fails, or answers late, or finds nothing."""

    def __init__(self) -> None:
        self.reads, self.down = 0, True

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.reads += 1
        if self.down:
            raise StorageError("down")
        return [None] * len(keys)


def test_after_three_failures_it_is_asked_by_a_probe_now_and_then() -> None:
    now, store = [0.0], Store()
    online = OnlineStore(system, store, breaker=Breaker(lambda: now[0], random.Random(1), after=3))  # type: ignore[arg-type]
    for _ in range(20):
        assert set(online.read(ROW, NOW).statuses) == {Status.UNAVAILABLE}
    assert store.reads == 3
    now[0] += 0.8
    for _ in range(20):
        assert set(online.read_many({"depot": ["north"] * 5}, [NOW] * 5).statuses.ravel()) == {Status.UNAVAILABLE}
    assert store.reads == 4
    now[0] += 1.6
    store.down = False
    for _ in range(20):
        assert Status.UNAVAILABLE not in online.read(ROW, NOW).statuses
    assert store.reads == 24


def test_late_reads_count_as_failures() -> None:
    store = Store()
    store.down = False
    online = OnlineStore(system, store, breaker=Breaker(lambda: 0.0, random.Random(1), after=3))  # type: ignore[arg-type]
    for _ in range(10):
        assert set(online.read(ROW, NOW, deadline_us=0).statuses) == {Status.UNAVAILABLE}
    assert store.reads == 3
