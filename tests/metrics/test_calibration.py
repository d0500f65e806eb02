import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mainspring.metrics import calibration_error, calibration_line, clopper_pearson, reliability, spiegelhalter


def draw(rng: np.random.Generator, n: int, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truths; the true chance has ``slope`` times the score's logit."""
    logit = rng.normal(-1, 1.5, n)
    return 1 / (1 + np.exp(-logit)), rng.random(n) < 1 / (1 + np.exp(-slope * logit))


def test_bins_are_of_equal_mass_and_never_part_equal_scores() -> None:
    score = np.array([0.1] * 6 + [0.5] * 2 + [0.9] * 2)
    truth = np.array([0, 0, 0, 0, 0, 1, 0, 1, 1, 1])
    table = reliability(score, truth, bins=5)
    assert [one.rows for one in table] == [6, 2, 2]
    assert [one.score for one in table] == pytest.approx([0.1, 0.5, 0.9])
    assert [one.share for one in table] == pytest.approx([1 / 6, 0.5, 1.0])
    assert (table[1].low, table[1].high) == clopper_pearson(1, 2)
    assert calibration_error(score, truth, bins=5) == pytest.approx((6 * (1 / 6 - 0.1) + 0 + 2 * 0.1) / 10)
    rng = np.random.default_rng(0)
    assert [one.rows for one in reliability(rng.random(1000), rng.random(1000) < 0.5)] == [100] * 10


def test_the_error_of_a_calibrated_model_is_noise_as_large_as_said() -> None:
    rng = np.random.default_rng(1)
    chance = np.full(200, 0.3)
    errors = []
    for _ in range(300):
        score = chance + rng.uniform(-1e-6, 1e-6, 200)
        errors.append(calibration_error(score, rng.random(200) < chance, bins=10))
    assert np.mean(errors) == pytest.approx(0.8 * math.sqrt(10 * 0.3 * 0.7 / 200), rel=0.06)


def test_the_line_is_an_unpenalised_logistic_regression() -> None:
    score, truth = draw(np.random.default_rng(2), 3000, slope=0.6)
    line = calibration_line(score, truth)
    logit = np.log(score / (1 - score))[:, None]
    other = LogisticRegression(C=np.inf, tol=1e-10).fit(logit, truth)
    assert (line.intercept, line.slope) == pytest.approx((other.intercept_[0], other.coef_[0, 0]), abs=1e-5)
    assert line.slope == pytest.approx(0.6, abs=4 * line.slope_error)


def test_standard_errors_and_z_hold_what_they_promise() -> None:
    rng = np.random.default_rng(3)
    covered = rejected = 0
    for _ in range(600):
        score, truth = draw(rng, 400)
        line = calibration_line(score, truth)
        covered += abs(line.slope - 1) <= 1.96 * line.slope_error and abs(line.intercept) <= 2.5 * line.intercept_error
        rejected += spiegelhalter(score, truth)[1] < 0.05
    assert 0.91 * 600 <= covered <= 0.965 * 600
    assert 0.03 * 600 <= rejected <= 0.075 * 600
    assert spiegelhalter(*draw(rng, 4000, slope=0.6))[1] < 0.001


def test_what_has_no_solution_is_nan_and_what_is_no_probability_is_refused() -> None:
    half = np.full(4, 0.5)
    for score, truth in (
        (half, np.array([0, 1, 0, 1])),
        (np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])),
        (np.array([0.1, 0.2, 0.8, 0.9]), np.ones(4)),
    ):
        assert math.isnan(calibration_line(score, truth).slope)
    assert math.isnan(spiegelhalter(half, np.array([0, 1, 0, 1]))[0])
    for measure in (calibration_error, reliability, calibration_line, spiegelhalter):
        for score, words in ((half + 1, "between 0 and 1"), (half[:0], "shapes"), (np.full(4, np.nan), "between")):
            with pytest.raises(ValueError, match=words):
                measure(score, np.array([0, 1, 0, 1])[: len(score)])
    with pytest.raises(ValueError, match="bins"):
        calibration_error(half, np.ones(4), bins=0)
    assert math.isfinite(calibration_line(np.array([0.0, 1.0, 1.0, 0.0, 0.4]), np.array([0, 1, 0, 1, 1])).slope)
