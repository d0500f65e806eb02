import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.metrics import bias, coverage, mae, pinball, rmse

PREDICTED = np.array([1.0, 4.0, 2.0, 8.0])
TRUTH = np.array([2.0, 2.0, 2.0, 4.0])


def test_worked_values() -> None:
    assert mae(PREDICTED, TRUTH) == 7 / 4
    assert rmse(PREDICTED, TRUTH) == pytest.approx((21 / 4) ** 0.5)
    assert bias(PREDICTED, TRUTH) == 5 / 4
    assert coverage(TRUTH, TRUTH, TRUTH) == 1.0
    assert coverage(np.array([1.0, 3.0, 2.0, 0.0]), np.array([3.0, 4.0, 2.0, 3.9]), TRUTH) == 0.5
    assert pinball(PREDICTED, TRUTH, 0.9) == pytest.approx((0.9 * 1 + 0.1 * 2 + 0.1 * 4) / 4)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1))
def test_orders_that_always_hold(rows: list[tuple[float, float]]) -> None:
    predicted, truth = np.array(rows).T
    slack = 1e-6
    assert abs(bias(predicted, truth)) <= mae(predicted, truth) + slack
    assert mae(predicted, truth) <= rmse(predicted, truth) + slack
    assert pinball(predicted, truth, 0.5) == pytest.approx(mae(predicted, truth) / 2)


@pytest.mark.parametrize("truth", [np.zeros(3), np.zeros((4, 1)), np.zeros(1)])
def test_shapes_must_be_equal(truth: np.ndarray) -> None:
    for measure in (mae, rmse, bias):
        with pytest.raises(ValueError, match="shapes"):
            measure(PREDICTED, truth)
    with pytest.raises(ValueError, match="shapes"):
        pinball(PREDICTED, truth, 0.5)
    with pytest.raises(ValueError, match="shapes"):
        coverage(PREDICTED, truth, PREDICTED)
    with pytest.raises(ValueError, match="shapes"):
        coverage(truth, PREDICTED, PREDICTED)


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no rows"):
        mae(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="quantile"):
        pinball(PREDICTED, TRUTH, 1.0)
