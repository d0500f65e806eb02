"""One evaluation: everything that fits, found where it is, and JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import mainspring as ms
from mainspring.clock import DAY
from mainspring.errors import RegistryError, TrainingError
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.measuring import Answers
from mainspring.evaluation.record import Evaluation
from mainspring.metrics import METRICS

N = 4_000
RNG = np.random.default_rng(0)
AS_OF = np.sort(RNG.integers(0, 20 * DAY, N))
PLACE = RNG.choice(np.array(["north", "south", "west"], dtype=object), N)
SIZE = RNG.random(N)
TRUE = 100 + 20 * RNG.normal(size=N)
NOISE = RNG.normal(size=N) * np.where(PLACE == "west", 12, 5)
RISK = 1 / (1 + np.exp(-RNG.normal(-2, 1.5, N)))
BAD = (RNG.random(N) < RISK).astype(float)
COLUMNS = {"place": PLACE, "size": SIZE}


def numbers(**changes: Any) -> Evaluation:
    score = TRUE + NOISE
    held = Held(TRUE, AS_OF, COLUMNS, ("place",))
    asked = {"qualities": [ms.at_most("mae", 0.5, of="flat"), ms.between("coverage", 0.9, 1.0)], **changes}
    return evaluate(
        "regression", held, Answers(score, score - 8, score + 8), {"flat": np.full(N, 100.0), "champion": TRUE - 2 * NOISE}, **asked
    )


def classes(**changes: Any) -> Evaluation:
    held = Held(BAD, AS_OF, COLUMNS, ("place", "size"))
    rivals = {"flat": np.full(N, BAD.mean()), "champion": np.clip(RISK + 0.1, 0, 1)}
    return evaluate("binary", held, Answers(RISK), rivals, **changes)


def several() -> Evaluation:
    probability = RNG.dirichlet(np.ones(3), N)
    truth = np.array([RNG.choice(3, p=row) for row in probability]).astype(float)
    return evaluate("multiclass", Held(truth, AS_OF), Answers(probability), {"flat": np.full((N, 3), 1 / 3)})


def test_every_measure_of_the_task_is_taken_with_an_interval() -> None:
    for found, kinds in ((numbers(), ("regression", "interval")), (classes(), ("binary",)), (several(), ("multiclass",))):
        assert {one.name for one in found.measures} == {metric.name for metric in METRICS.values() if metric.kind in kinds}
        for one in found.measures:
            assert None not in (one.value, one.low, one.high), one
            assert one.how == "days drawn"


def test_measures_are_those_of_the_table() -> None:
    score = TRUE + NOISE
    by_name = {one.label: one.value for one in numbers().measures}
    assert by_name["mae"] == pytest.approx(METRICS["mae"].function(score, TRUE))
    assert by_name["coverage"] == pytest.approx(METRICS["coverage"].function(score - 8, score + 8, TRUE))
    by_name = {one.label: one.value for one in classes(qualities=[ms.at_least("recall", 0.1, at_alert_rate=0.05)]).measures}
    for name in ("precision", "recall", "f1", "mcc"):
        assert by_name[f"{name} at alert_rate 0.05"] == pytest.approx(METRICS[name].function(RISK, BAD, alert_rate=0.05))


def test_json_brings_the_same_evaluation_back_and_holds_no_nan() -> None:
    for found in (numbers(), classes(costs=ms.Costs(tp=5, fp=5, fn=60)), several()):
        assert Evaluation.from_json(found.to_json()) == found
        json.dumps(json.loads(found.to_json()), allow_nan=False)
    with pytest.raises(RegistryError, match="Evaluate the version again"):
        Evaluation.from_json(b'{"task": "regression"}')


def test_the_same_rows_give_the_same_evaluation() -> None:
    first, second = (json.loads(numbers().to_json()) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_promises_are_held_and_refuted_only_by_the_whole_interval() -> None:
    ratio, covered = numbers().promises
    assert (ratio.verdict, ratio.refuted) == ("met", False)
    assert (covered.verdict, covered.refuted) == ("missed", True)
    close = numbers(qualities=[ms.between("coverage", covered.measured.value + 1e-6, 1.0)]).promises[0]
    assert (close.verdict, close.refuted) == ("missed", False)
    (nothing,) = evaluate(
        "binary", Held(np.zeros(500)), Answers(RISK[:500]), qualities=[ms.at_least("recall", 0.1, at_threshold=0.5)]
    ).promises
    assert (nothing.verdict, nothing.refuted) == ("unmeasured", False)


def test_rivals_are_compared_on_the_same_rows_and_adjusted_together() -> None:
    flat, champion = numbers().against
    assert (flat.rival, champion.rival) == ("flat", "champion")
    assert champion.ratio == pytest.approx(0.5)
    assert champion.low == pytest.approx(0.5)
    assert flat.high < 1
    assert flat.p < 0.01
    equal = evaluate("regression", Held(TRUE, AS_OF), Answers(TRUE + NOISE), {"one": TRUE + NOISE, "perfect": TRUE})
    assert [(one.ratio, one.p) for one in equal.against] == [(1.0, 1.0), (None, 1.0)]


def test_slices_come_worst_first_and_what_is_worse_is_found() -> None:
    found = numbers()
    assert found.slices[0].name == "place = west"
    assert sum(one.rows for one in found.slices) == N
    assert found.slices[0].measures[0].low > found.own_loss.value
    assert {measure.label for measure in found.slices[0].measures} == {"mae", "bias", "coverage"}
    assert found.worse[0].name == "place = west"
    assert not evaluate("regression", Held(TRUE, AS_OF, COLUMNS), Answers(TRUE + RNG.normal(size=N))).worse


def test_an_alert_in_a_slice_is_one_of_all_rows() -> None:
    found = classes(qualities=[ms.at_least("recall", 0.1, at_alert_rate=0.05)])
    hits = {one.name: next(measure for measure in one.measures if measure.name == "recall") for one in found.slices}
    cut = np.quantile(RISK, 0.95, method="higher")
    for name in ("north", "south", "west"):
        rows = name == PLACE
        assert hits[f"place = {name}"].value == pytest.approx(BAD[rows & (cut <= RISK)].sum() / BAD[rows].sum())


def test_calibration_says_what_came() -> None:
    right, wrong = classes(), evaluate("binary", Held(BAD, AS_OF), Answers(RISK**2))
    assert sum(one.rows for one in right.calibration) == N
    assert sum(one.low <= one.predicted <= one.high for one in right.calibration) >= 8
    assert sum(one.low <= one.predicted <= one.high for one in wrong.calibration) <= 4
    assert abs(right.line.slope - 1) < 3 * right.line.slope_error
    assert wrong.line.slope < 1 - 3 * wrong.line.slope_error
    low = numbers().calibration[0]
    assert low.low < low.came < low.high
    assert sum(one.rows for one in several().calibration) == N


def test_costs_give_a_threshold() -> None:
    assert classes().best is None
    assert {one.cost for one in classes().thresholds} == {None}
    found = classes(costs=ms.Costs(tp=5, fp=5, fn=60))
    assert found.best.threshold_low <= found.best.threshold <= found.best.threshold_high
    assert min(one.cost for one in found.thresholds) == pytest.approx(found.best.cost, rel=0.05)
    assert [one.alert_rate for one in found.thresholds] == sorted(one.alert_rate for one in found.thresholds)


def test_a_model_of_a_quantile_is_compared_by_its_pinball_loss() -> None:
    found = evaluate("regression", Held(TRUE, AS_OF), Answers(TRUE + 5), {"middle": np.full(N, 100.0)}, quantile=0.9)
    assert found.own_loss.label == "pinball at quantile 0.9"
    assert found.own_loss.value == pytest.approx(0.5)
    assert found.unmeasured == {"coverage": "the model gives no interval"}


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"0 rows .* cannot be evaluated"):
        evaluate("regression", Held(np.zeros(0)), Answers(np.zeros(0)))
    with pytest.raises(TrainingError, match="task ranking"):
        evaluate("ranking", Held(np.zeros(3)), Answers(np.zeros(3)))
    with pytest.raises(TrainingError, match=r"answers of the version have shape \(4,\), for 3 rows"):
        evaluate("regression", Held(np.zeros(3)), Answers(np.zeros(4)))
    with pytest.raises(TrainingError, match="1 answers of champion are NaN"):
        evaluate("regression", Held(np.zeros(3)), Answers(np.zeros(3)), {"champion": np.array([0, np.nan, 0])})
    with pytest.raises(TrainingError, match="from -1 to 2: no probabilities"):
        evaluate("binary", Held(np.array([0.0, 1.0])), Answers(np.array([-1.0, 2.0])))


def test_figures_are_flat_enough_for_a_manifest() -> None:
    figures = numbers().figures()
    assert figures["mae"] == figures["loss"]["value"]
    assert figures["ratios"]["champion"]["ratio"] == pytest.approx(0.5)
    assert figures["promises"] == {"mae / flat <= 0.5": "met", "coverage in [0.9, 1]": "missed"}
    assert classes().figures()["mae"] == pytest.approx(np.abs(RISK - BAD).mean())
    assert "mae" not in several().figures()
