import numpy as np

from mainspring.metrics import PageHinkley, page_hinkley


def test_a_rise_is_found_soon_and_a_fall_or_calm_never() -> None:
    rng = np.random.default_rng(0)
    calm = rng.normal(size=3000)
    assert page_hinkley(calm, delta=0.5, threshold=15) is None
    assert page_hinkley(np.concatenate([calm[:500], calm[500:1000] - 3]), delta=0.5, threshold=15) is None
    found = page_hinkley(np.concatenate([calm[:500], calm[500:1000] + 2]), delta=0.5, threshold=15)
    assert found is not None
    assert 500 <= found <= 520


def test_worked_values_and_steps() -> None:
    state = PageHinkley(delta=0.5, threshold=2.0)
    seen = []
    for value in (0.0, 0.0, 3.0, 3.0):
        state = state.step(value)
        seen.append((state.mean, state.total, state.lowest, state.alarm))
    assert seen == [(0.0, -0.5, -0.5, False), (0.0, -1.0, -1.0, False), (1.0, 0.5, -1.0, False), (1.5, 1.5, -1.0, True)]
    assert page_hinkley([0.0, 0.0, 3.0, 3.0], delta=0.5, threshold=2.0) == 3
    assert page_hinkley([], delta=0.5, threshold=2.0) is None
