"""The gate: what passes, and why something does not."""

from __future__ import annotations

import numpy as np
import pytest

import mainspring as ms
from mainspring.clock import DAY
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.gate import GateResult, judge
from mainspring.evaluation.measuring import Answers
from mainspring.spec import Quality

N = 3_000
RNG = np.random.default_rng(0)
TRUTH = RNG.normal(100, 20, N)
NOISE = RNG.normal(0, 10, N)
AS_OF = np.sort(RNG.integers(0, 14 * DAY, N))


def gate(*qualities: Quality, as_of: np.ndarray = AS_OF, **rivals: np.ndarray) -> GateResult:
    score = TRUTH + NOISE
    found = evaluate("regression", Held(TRUTH, as_of), Answers(score, score - 10, score + 10), rivals, qualities=qualities)
    return judge(found, margin=0.02)


def test_the_reason_names_the_loss_and_every_rival() -> None:
    result = gate(flat=np.full(N, 100.0), champion=TRUTH + NOISE)
    assert result.passed
    assert result.reason.startswith("MAE ")
    assert "x flat, 1.000 x champion" in result.reason
    assert result.metrics == result.evaluation.figures()
    refused = gate(flat=TRUTH + NOISE / 2)
    assert not refused.passed
    assert "MAE 2.000 x flat [2.000, 2.000], must stay below 1" in refused.reason


def test_a_promise_that_is_shown_to_be_missed_refuses() -> None:
    flat = np.full(N, 100.0)
    assert gate(ms.at_most("mae", 9), flat=flat).passed
    refused = gate(ms.at_most("mae", 5), flat=flat)
    assert not refused.passed
    assert refused.reason.startswith("mae <= 5 is missed: ")
    assert not gate(ms.between("coverage", 0.9, 1.0), flat=flat).passed


def test_a_promise_that_the_rows_leave_open_refuses_nothing() -> None:
    found = gate(flat=np.full(N, 100.0)).evaluation.own_loss
    assert found.value is not None
    close = gate(ms.at_most("mae", found.value - 1e-6), flat=np.full(N, 100.0))
    assert close.evaluation.promises[0].verdict == "missed"
    assert close.passed


def test_one_day_shows_nothing_and_so_nothing_passes() -> None:
    result = gate(as_of=np.zeros(N, dtype=np.int64), flat=np.full(N, 100.0))
    assert not result.passed
    assert "[open, open]" in result.reason


@pytest.mark.parametrize(("task", "title"), [("binary", "Brier score"), ("multiclass", "log loss")])
def test_probabilities_are_compared_by_losses_of_their_own(task: str, title: str) -> None:
    risk = RNG.uniform(0.05, 0.6, N)
    truth = (RNG.random(N) < risk).astype(float)
    both = {"good": risk, "flat": np.full(N, truth.mean())}
    answers = both if task == "binary" else {name: np.stack([1 - one, one], axis=1) for name, one in both.items()}
    better, worse = (
        judge(evaluate(task, Held(truth, AS_OF), Answers(answers[own]), {other: answers[other]}), margin=0.0)
        for own, other in (("good", "flat"), ("flat", "good"))
    )
    assert better.passed
    assert better.reason.startswith(title)
    assert not worse.passed
    assert worse.reason.startswith(title)
