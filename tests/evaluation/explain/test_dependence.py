from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import DeclarationError
from mainspring.evaluation.explain.dependence import accumulated_local_effects, interaction, partial_dependence

Columns = dict[str, np.ndarray]  # type: ignore[type-arg]
Curve = Callable[[np.ndarray], np.ndarray]  # type: ignore[type-arg]


def rows(n: int = 3_000, seed: int = 0, together: float = 0.0) -> Columns:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return {"a": a, "b": together * a + np.sqrt(1 - together**2) * rng.normal(size=n), "shop": rng.choice(list("stu"), n).astype(object)}


def additive(columns: Columns) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(np.sin(2 * columns["a"]) + columns["b"] ** 2 + 3 * (columns["shop"] == "t"))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_of_a_sum_both_show_the_part_of_the_feature() -> None:
    columns = rows()
    partial = partial_dependence(additive, columns, "a", rng=rng())
    values = np.array(partial.values)
    assert np.isin(values, columns["a"]).all()
    assert partial.effect - partial.effect[0] == pytest.approx(np.sin(2 * values) - np.sin(2 * values[0]))
    assert np.ptp(partial.curves - partial.effect, axis=1) == pytest.approx(np.zeros(500), abs=1e-9)
    assert (partial.low <= partial.effect).all()
    assert (partial.effect <= partial.high).all()
    local = accumulated_local_effects(additive, columns, "a", rng=rng())
    assert local.effect - local.effect[0] == pytest.approx(np.sin(2 * values) - np.sin(2 * values[0]))
    assert local.share.sum() == pytest.approx(1)


@settings(max_examples=20)
@given(st.integers(0, 1_000), st.floats(-3, 3), st.floats(0, 0.95), st.integers(3, 40))
def test_local_effects_of_a_line_are_the_line_about_its_mean(seed: int, slope: float, together: float, points: int) -> None:
    columns = rows(400, seed, together)
    found = accumulated_local_effects(lambda one: slope * one["a"] + one["b"] ** 3, columns, "a", rng=rng(), points=points, draws=5)
    values = np.array(found.values)
    assert np.diff(found.effect) == pytest.approx(slope * np.diff(values), abs=1e-9)
    place = np.maximum(np.searchsorted(values, columns["a"]), 1)
    assert ((found.effect[place] + found.effect[place - 1]) / 2).mean() == pytest.approx(0, abs=1e-9)


def test_local_effects_do_not_ask_for_rows_that_cannot_be() -> None:
    a = rng().uniform(-3, 3, 3_000)
    columns = {"a": a, "b": a + rng().normal(0, 0.1, 3_000)}

    def wild(one: Columns) -> np.ndarray:  # type: ignore[type-arg]
        """What no row says, but the model, where the twins are apart."""
        return np.where(np.abs(one["a"] - one["b"]) > 1.5, 1_000.0, one["a"])

    local = accumulated_local_effects(wild, columns, "a", rng=rng())
    assert np.ptp(local.effect) == pytest.approx(np.ptp(columns["a"]), rel=1e-6)
    assert np.ptp(partial_dependence(wild, columns, "a", rng=rng()).effect) > 100


def test_intervals_hold_the_effect_of_all_rows() -> None:
    def product(one: Columns) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(one["a"] * (1 + one["b"]))

    inside = []
    for seed in range(40):
        found = accumulated_local_effects(product, rows(400, seed), "a", rng=rng(), points=2)
        inside.append(found.low[-1] <= (found.values[-1] - found.values[0]) / 2 <= found.high[-1])
    assert np.mean(inside) > 0.8


def test_categories_keep_their_effects_and_stand_beside_those_like_them() -> None:
    source = np.random.default_rng(1)
    level = source.integers(0, 5, 4_000)
    names = np.array(["c", "a", "e", "b", "d"], dtype=object)
    columns = {"shop": names[level], "size": level + source.normal(0, 0.7, 4_000), "town": np.where(level > 2, "x", "y").astype(object)}
    columns["lists"] = np.empty(4_000, dtype=object)
    columns["lists"][:] = [["x", 1]] * 4_000

    def predict(one: Columns) -> np.ndarray:  # type: ignore[type-arg]
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[name] ** 2.0 for name in one["shop"]]) + one["size"]

    found = accumulated_local_effects(predict, columns, "shop", rng=rng())
    assert found.categories
    assert list(found.values) in (list(names), list(names)[::-1])
    effects = dict(zip(found.values, found.effect, strict=True))
    for place, name in enumerate(names):
        assert effects[name] - effects["c"] == pytest.approx(place**2)
    assert found.effect @ found.share == pytest.approx(0, abs=1e-9)
    partial = partial_dependence(predict, columns, "shop", rng=rng())
    assert partial.effect[partial.values.index("d")] - partial.effect[partial.values.index("c")] == pytest.approx(16)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (np.array([1, 2, 3, 4] * 50), np.int64),
        (np.array([1, None, 3, 4] * 50, dtype=object), object),
        (np.array([True, False] * 100), np.bool_),
        (np.array([1.0, np.nan, 2.0, 7.0] * 50), np.float64),
        (np.array(["x", None, "y", "x"] * 50, dtype=object), object),
    ],
    ids=["int", "int with nulls", "bool", "float with nulls", "text with nulls"],
)
def test_columns_keep_their_kind_and_missing_is_a_value(column: np.ndarray, kind: type) -> None:  # type: ignore[type-arg]
    seen: set[object] = set()

    def predict(one: Columns) -> np.ndarray:  # type: ignore[type-arg]
        assert one["a"].dtype == kind
        seen.update(one["a"].tolist())
        return np.ones(len(one["a"]))

    found = partial_dependence(predict, {"a": column}, "a", rng=rng())
    missing = any(value is None or value != value for value in column.tolist())
    assert (found.values[-1] is None) == missing
    assert found.share.sum() == pytest.approx(1)
    assert {value for value in seen if value == value} <= set(column.tolist())
    local = accumulated_local_effects(predict, {"a": column}, "a", rng=rng())
    assert None not in local.values
    assert local.effect == pytest.approx(np.zeros(len(local.values)))


def test_interaction_is_the_share_that_neither_has_alone() -> None:
    columns = rows(300)
    assert interaction(additive, columns, "a", "b", rng=rng()) == pytest.approx(0, abs=1e-12)
    assert interaction(lambda one: one["a"] * one["b"], columns, "a", "b", rng=rng()) > 0.8
    assert interaction(lambda one: np.ones(len(one["a"])), columns, "a", "b", rng=rng()) == 0


def test_what_cannot_be_followed_is_refused() -> None:
    columns = rows(100)
    with pytest.raises(DeclarationError, match="no feature 'c'"):
        partial_dependence(additive, columns, "c", rng=rng())
    with pytest.raises(DeclarationError, match="fewer than two values"):
        accumulated_local_effects(additive, {**columns, "a": np.ones(100)}, "a", rng=rng())
    with pytest.raises(DeclarationError, match="gives 2 numbers a row"):
        partial_dependence(lambda one: np.ones((len(one["a"]), 2)), columns, "a", rng=rng())
