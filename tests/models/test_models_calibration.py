from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from mainspring.models.calibration import Isotonic, Platt, Temperature, calibration_from, resampled, sharpened


def skewed(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Probabilities that are too sure by a known curve, and truths."""
    rng = np.random.default_rng(seed)
    true = 1 / (1 + np.exp(-rng.normal(-1, 1.5, n)))
    said = 1 / (1 + np.exp(-(2.5 * np.log(true / (1 - true)) + 0.7)))
    return said, (rng.random(n) < true).astype(float)


@pytest.mark.parametrize("kind", [Platt, Isotonic])
def test_calibrated_probabilities_come_true(kind: type[Platt] | type[Isotonic]) -> None:
    said, truth = skewed(40_000, 0)
    fitted = calibration_from(kind.fit(said, truth).to_dict())
    said, truth = skewed(40_000, 1)
    calibrated = fitted.apply(said)
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9)):
        within = (calibrated >= low) & (calibrated < high)
        assert calibrated[within].mean() == pytest.approx(truth[within].mean(), abs=0.015)
        before = (said >= low) & (said < high)
        assert low == 0.3 or abs(said[before].mean() - truth[before].mean()) > 0.03


def test_platt_finds_the_curve_that_was_bent() -> None:
    fitted = Platt.fit(*skewed(200_000, 2))
    assert fitted.slope == pytest.approx(1 / 2.5, abs=0.01)
    assert fitted.shift == pytest.approx(-0.7 / 2.5, abs=0.03)


@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_is_scikit_learns(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    said, truth = np.round(rng.random(3_000), 3), (rng.random(3_000) < 0.3).astype(float)
    weight = rng.random(3_000) + 0.1 if weighted else None
    ours = Isotonic.fit(said, truth, weight)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(said, truth, sample_weight=weight)
    asked = np.linspace(-0.1, 1.1, 5_000)
    assert ours.apply(asked) == pytest.approx(theirs.predict(asked), abs=1e-12)


def test_what_was_learned_from_fewer_negatives_is_right_among_all() -> None:
    true = np.linspace(0.01, 0.9, 50)
    seen = true / (true + 0.1 * (1 - true))
    assert resampled(seen, 0.1) == pytest.approx(true)


def test_the_temperature_that_softened_is_found() -> None:
    rng = np.random.default_rng(4)
    p = 1 / (1 + np.exp(-rng.normal(0, 2, 60_000)))
    truth = (rng.random(60_000) < p).astype(float)
    soft = sharpened(np.column_stack([1 - p, p]), 1 / 3)[:, 1]
    fitted = calibration_from(Temperature.fit(soft, truth).to_dict())
    assert isinstance(fitted, Temperature)
    assert fitted.sharpness == pytest.approx(3.0, rel=0.03)
    assert fitted.apply(soft) == pytest.approx(p, abs=0.01)


def test_temperature_sharpens_many_classes_and_keeps_their_order() -> None:
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.full(5, 0.5), 40_000)
    truth = (p.cumsum(axis=1) < rng.random((40_000, 1))).sum(axis=1).clip(max=4).astype(float)
    soft = sharpened(p, 0.5)
    fitted = Temperature.fit(soft, truth, np.full(40_000, 2.0))
    assert fitted.sharpness == pytest.approx(2.0, rel=0.03)
    calibrated = fitted.apply(soft)
    assert calibrated.sum(axis=1) == pytest.approx(1.0)
    assert calibrated.argmax(axis=1).tolist() == soft.argmax(axis=1).tolist()
