"""Looks at a rollout: forward, back, or wait."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.clock import DAY, HOUR
from mainspring.loop.rollout import look, next_share, paired_errors
from mainspring.loop.triggers import due
from mainspring.model_registry.deployment import Decision, Deployment
from mainspring.monitoring.reading import Reading
from mainspring.systems.eta import system

ROLLOUT = ms.Rollout(unit="id", shadow="1d", step="1d", min_labels=100, margin=0.05, patience="5d")
CANARY = Deployment("old", None, "new", "canary", 0.1, since=0)


def table(n: int, new_error: float, old_error: float = 10.0, *, failures: int = 0, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    by_new = rng.random(n) < 0.3
    label = np.zeros(n)
    new, old = rng.exponential(new_error, n), rng.exponential(old_error, n)
    failed = np.arange(n) < failures
    return pa.table(
        {
            "version": np.where(by_new, "new", "old"),
            "shadow_version": np.where(by_new, "old", "new"),
            "variant": np.where(by_new, "challenger", "champion"),
            "answered_by": np.where(by_new & failed, "previous", "model"),
            "score": np.where(by_new, new, old),
            "shadow_score": pa.array(np.where(by_new, old, new), mask=failed & ~by_new),
            "label": label,
        }
    )


def test_errors_are_paired_whoever_answered() -> None:
    labelled = table(5_000, 4.0, 8.0)
    challenger, champion = paired_errors(CANARY, labelled)
    assert len(challenger) == 5_000
    assert (challenger.mean(), champion.mean()) == pytest.approx((4.0, 8.0), rel=0.05)


@pytest.mark.parametrize(
    ("new_error", "n", "hours", "outcome"),
    [
        (5.0, 50, 30, "insufficient"),
        (5.0, 3_000, 30, "advance"),
        (5.0, 3_000, 2, "hold"),
        (30.0, 3_000, 2, "roll_back"),
        (10.4, 300, 30, "hold"),
    ],
)
def test_the_evidence_decides(new_error: float, n: int, hours: int, outcome: str) -> None:
    assert look(ROLLOUT, CANARY, table(n, new_error), 0, hours * HOUR).outcome == outcome


def test_what_stays_undecided_goes_back() -> None:
    assert look(ROLLOUT, CANARY, table(300, 10.4), 0, 5 * DAY).outcome == "roll_back"
    assert look(ROLLOUT, CANARY, table(10, 10.4), 0, 5 * DAY).outcome == "roll_back"


def test_a_challenger_that_fails_goes_back_at_once() -> None:
    seen = look(ROLLOUT, CANARY, table(60, 5.0, failures=12), 0, HOUR)
    assert seen.outcome == "roll_back"
    assert "failed on 12 of 60" in seen.reason


def test_shares_rise_to_all() -> None:
    rollout = ms.Rollout(unit="id", steps=(0.01, 0.1, 1.0))
    assert [next_share(rollout, Deployment("o", None, "n", "canary", share)) for share in (0.0, 0.01, 0.1)] == [0.01, 0.1, 1.0]


def test_looking_often_seldom_drops_an_equal_version() -> None:
    dropped = 0
    for seed in range(60):
        whole = table(4_000, 10.0, seed=seed)
        looks = [look(ROLLOUT, CANARY, whole.slice(0, n), 0, HOUR).outcome for n in range(200, 4_001, 200)]
        dropped += "roll_back" in looks
    assert dropped <= 3


def decision(action: str, at: int) -> Decision:
    return Decision(1, at, "eta", action, "", "loop", "", {})


ALARM = Reading("drift", "haul", 0, 1, 0.3, 0.1, alarm=True, calibrated=True, rows=9)


@pytest.mark.parametrize(
    ("last", "now", "alarms", "why"),
    [
        (0, 13 * DAY, [], None),
        (0, 14 * DAY, [], "schedule: every 14d"),
        (0, 6 * DAY, [ALARM], None),
        (0, 8 * DAY, [ALARM], "drift: haul 0.3 above 0.1"),
    ],
)
def test_when_to_retrain(last: int, now: int, alarms: list[Reading], why: str | None) -> None:
    got = due(system, [decision("retrain", last)], alarms, now)
    assert got is None if why is None else got is not None and got.startswith(why)
