import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.metrics import Reference, fit_reference, histogram, js_distance, js_noise

NUMBERS = st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0, 2.0]), max_size=60)
WORDS = st.lists(st.none() | st.text("abc", max_size=3) | st.just(float("nan")), max_size=60)


@given(NUMBERS, NUMBERS)
def test_every_number_falls_into_one_bin(reference: list[float], values: list[float]) -> None:
    bins = fit_reference(np.array(reference, dtype=float))
    counts = histogram(bins, np.array(values, dtype=float))
    assert counts.sum() == len(values)
    assert len(counts) == len(bins.names) == len(bins.counts)
    assert len(bins.edges) <= 20
    assert bins.counts[-1] == sum(np.isnan(reference))
    assert sum(bins.counts[-3:-1]) == sum(np.isinf(reference))
    if bins.edges:
        assert counts[-3] == sum(value < bins.edges[0] for value in values)
        assert counts[-2] == sum(value > bins.edges[-1] for value in values)


@given(WORDS, WORDS)
def test_every_category_falls_into_one_bin(reference: list[object], values: list[object]) -> None:
    bins = fit_reference(np.array(reference, dtype=object))
    counts = histogram(bins, np.array(values, dtype=object))
    assert counts.sum() == len(values)
    assert len(counts) == len(bins.names) == len(bins.counts)
    assert bins.counts[-1] == sum(not isinstance(value, str) for value in reference)
    assert counts[-1] == sum(not isinstance(value, str) for value in values)


def test_few_values_have_a_bin_each_and_many_equal_bins() -> None:
    flags = fit_reference(np.array([True, False, True, True]))
    assert (flags.edges, flags.counts) == ((0.0, 1.0), (1, 3, 0, 0, 0))
    many = fit_reference(np.random.default_rng(0).normal(size=19_000))
    assert len(many.edges) == 20
    assert max(many.counts[:19]) <= 1001
    assert many.counts[19:] == (1, 0, 0, 0)
    names = np.array([f"c{index:03d}" for index in range(40) for _ in range(index + 1)], dtype=object)
    assert fit_reference(names).names[:2] == ("c039", "c038")
    assert fit_reference(names).names[-3:] == ("c010", "other", "missing")


@pytest.mark.parametrize("values", [np.array([1.5, np.nan, 7.0, np.inf]), np.array(["a", None, "b"], dtype=object), np.zeros(0)])
def test_a_reference_survives_json(values: np.ndarray) -> None:
    reference = fit_reference(values)
    assert Reference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference


COUNTS = st.lists(st.integers(0, 500), min_size=4, max_size=4).filter(any).map(np.array)


@given(COUNTS, COUNTS)
def test_the_distance_is_symmetric_bounded_and_zero_for_equals(p: np.ndarray, q: np.ndarray) -> None:
    distance = js_distance(p, q)
    assert distance == pytest.approx(js_distance(q, p), abs=1e-9)
    assert 0 <= distance <= 1
    assert js_distance(p, p) == pytest.approx(0, abs=1e-7)


def test_the_distance_of_known_histograms() -> None:
    half = np.array([50_000_000, 50_000_000])
    assert js_distance(half, np.array([100_000_000, 0])) == pytest.approx(0.5579, abs=1e-3)
    assert js_distance(np.array([10**8, 0]), np.array([0, 10**8])) == pytest.approx(1.0, abs=1e-6)
    assert js_distance(np.array([1, 0]), np.array([0, 1])) < 0.8
    for wrong in (np.array([1, 2, 3]), np.array([0, 0])):
        with pytest.raises(ValueError, match=r"bins|rows"):
            js_distance(half, wrong)


@pytest.mark.parametrize(("n", "m"), [(200, 5000), (1000, 1000), (20_000, 3000)])
def test_equal_distributions_exceed_the_noise_as_rarely_as_promised(n: int, m: int) -> None:
    rng, share = np.random.default_rng(n), np.full(15, 1 / 15)
    over = sum(
        js_distance(p, q) > js_noise(p, q, 0.02)
        for p, q in zip(rng.multinomial(n, share, 1500), rng.multinomial(m, share, 1500), strict=True)
    )
    assert 0.005 * 1500 <= over <= 0.03 * 1500


def test_a_single_shared_bin_has_no_noise() -> None:
    assert js_noise(np.array([5, 0]), np.array([9, 0]), 0.01) == 0
