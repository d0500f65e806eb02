"""What a counterfactual promises: it reaches the target when asked again, with values that occur, as constrained, and needs all changes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from delivery import system as delivery
from mainspring.errors import DeclarationError, ServingError
from mainspring.evaluation.explain.changes import Constraints, changeable, functions_of, recomputing
from mainspring.evaluation.explain.counterfactuals import Counterfactual, Counterfactuals, Target, counterfactuals
from mainspring.models.tabular import TabularModel
from mainspring.systems.eta import system as eta
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

Columns = dict[str, Any]
NAMES = ["amount", "age", "country", "weekend", "visits", "ratio"]
FREE = ["amount", "age", "country", "weekend", "visits", "income"]


@ms.feature
def ratio(amount, income):  # type: ignore[no-untyped-def]
    return amount / income


def payments(n: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    columns: Columns = {
        "amount": np.exp(rng.normal(3, 1, n)),
        "income": np.exp(rng.normal(4, 0.5, n)),
        "age": rng.integers(18, 80, n),
        "country": rng.choice(np.array(["NL", "DE", "FR", "BE", None], dtype=object), n, p=[0.4, 0.3, 0.2, 0.05, 0.05]),
        "weekend": rng.random(n) < 0.3,
        "visits": np.where(rng.random(n) < 0.2, np.nan, rng.poisson(5, n)),
    }
    return {**columns, "ratio": columns["amount"] / columns["income"]}


@cache
def fitted(task: str) -> tuple[TabularModel, Columns]:
    """Risk rises with the ratio and on weekends in France, and falls with visits."""
    columns = payments(6_000, 0)
    odds = 1.5 * np.log(columns["ratio"]) + 2 * (columns["country"] == "FR") * columns["weekend"] - 0.3 * np.nan_to_num(columns["visits"])
    rng = np.random.default_rng(1)
    label = (rng.random(6_000) < 1 / (1 + np.exp(-odds))).astype(float)
    spec: ms.LightGBM = ms.LightGBM(objective="binary", trees=60, leaves=15)
    if task == "regression":
        spec, label = ms.LightGBM(trees=60, leaves=15), odds
    if task == "multiclass":
        spec, label = ms.LightGBM(objective="multiclass", classes=3, trees=30, leaves=15), np.digitize(odds, [-1, 1]).astype(float)
    examples = Examples(columns, label)
    return fit_model(spec, NAMES, examples, examples, threads=1), columns


def row(columns: Columns, place: int) -> dict[str, Any]:
    values = {name: column[place : place + 1].tolist()[0] for name, column in columns.items()}
    return {name: None if value != value else value for name, value in values.items()}


def search(values: dict[str, Any], target: Target, task: str = "binary", **options: Any) -> Counterfactuals:
    model, columns = fitted(task)
    return counterfactuals(model, values, target, columns, FREE, **{"functions": [ratio], **options})


def risky(at_least: float = 0.6) -> dict[str, Any]:
    model, columns = fitted("binary")
    return row(columns, int(np.flatnonzero(model.predict(columns) > at_least)[0]))


def changed(values: dict[str, Any], one: Counterfactual, without: str = "") -> dict[str, Any]:
    new = {**values, **{change.feature: change.after for change in one.changes if change.feature != without}}
    return {**new, "ratio": new["amount"] / new["income"]}


def asked(model: TabularModel, values: dict[str, Any]) -> float:
    return model.predict_row([values[name] for name in NAMES])[0]


@settings(max_examples=25)
@given(st.integers(0, 5_999), st.floats(0.05, 0.95), st.booleans())
def test_every_answer_keeps_every_promise(place: int, level: float, below: bool) -> None:
    model, columns = fitted("binary")
    values = row(columns, place)
    target = Target(below=level) if below else Target(above=level)
    found = search(values, target)
    assert found.predicted == (asked(model, values),)
    assert found.reached == target.reached(found.predicted)
    order = [(len(one.changes), one.distance) for one in found.found]
    assert order == sorted(order)
    assert len(order) <= 4
    for one in found.found:
        new = changed(values, one)
        assert one.predicted == (asked(model, new),)
        assert target.reached(one.predicted)
        assert [change.before for change in one.changes] == [values[change.feature] for change in one.changes]
        for change in one.changes:
            assert change.feature in FREE
            assert change.after in columns[change.feature].tolist()
            assert type(change.after) is type(columns[change.feature][columns[change.feature] == change.after].tolist()[0])
            assert not target.reached([asked(model, changed(values, one, without=change.feature))])
        moves = {change.feature for change in one.changes} & {"amount", "income"}
        assert [change.feature for change in one.follows] == (["ratio"] if moves else [])
    sets = [{change.feature for change in one.changes} for one in found.found]
    assert not any(first <= second for i, first in enumerate(sets) for j, second in enumerate(sets) if i != j)


def test_the_same_call_gives_the_same_answers() -> None:
    assert search(risky(), Target(below=0.2)) == search(risky(), Target(below=0.2))
    assert search(risky(), Target(below=0.2)).found


def test_of_a_line_the_change_is_the_smallest_that_occurs() -> None:
    columns: Columns = {"a": np.arange(100.0), "b": np.zeros(100)}
    examples = Examples(columns, columns["a"])
    model = fit_model(ms.Linear(l2=0.0), ["a", "b"], examples, examples, threads=1)
    found = counterfactuals(model, {"a": 10.0, "b": 0.0}, Target(above=49.5), columns, ["a", "b"])
    assert [str(one) for one in found.found] == ["a 10 -> 50"]
    assert found.found[0].distance == pytest.approx(40 / 25)


def test_what_a_constraint_forbids_does_not_happen() -> None:
    values = {**risky(), "country": "FR", "weekend": True, "visits": 2.0, "age": 40}
    values["ratio"] = values["amount"] / values["income"]
    limits = Constraints(
        fixed=["age", "weekend"], bounds={"income": (None, 100.0)}, increase=["visits"], decrease=["amount"], steps={"visits": 2},
        allowed={"country": ["DE"]},
    )  # fmt: skip
    found = search(values, Target(below=0.25), constraints=limits, most=4, answers=8)
    assert found.found
    for one in found.found:
        new = changed(values, one)
        assert (new["age"], new["weekend"]) == (40, True)
        assert new["country"] in ("FR", "DE")
        assert new["visits"] in (2, 4, 6, 8, 10, 12, 14)
        assert new["amount"] <= values["amount"]
        assert new["income"] <= max(100.0, values["income"])


def test_a_computed_feature_can_be_constrained_but_never_changed_by_itself() -> None:
    values = risky()
    held = search(values, Target(below=0.2), constraints=Constraints(fixed=["ratio"]))
    assert all(abs(changed(values, one)["ratio"] - values["ratio"]) < 1e-12 for one in held.found)
    bounded = search(values, Target(below=0.2), constraints=Constraints(bounds={"ratio": (0.5, None)}))
    assert all(changed(values, one)["ratio"] >= 0.5 for one in bounded.found if one.follows)


def test_a_missing_number_may_be_filled_in_but_has_no_direction() -> None:
    model, columns = fitted("binary")
    places = np.flatnonzero(np.isnan(columns["visits"]) & (model.predict(columns) > 0.5))
    values = row(columns, int(places[0]))
    found = search(values, Target(below=0.4), constraints=Constraints(fixed=[name for name in FREE if name != "visits"]))
    assert [(change.feature, change.before) for one in found.found for change in one.changes] == [("visits", None)]
    assert not search(values, Target(below=0.4), constraints=Constraints(fixed=[*FREE[:4], "income"], increase=["visits"])).found


def test_nothing_found_says_so_and_a_row_that_is_there_needs_nothing() -> None:
    found = search(risky(), Target(below=-1.0))
    assert (found.found, found.reached) == ((), False)
    assert found.tried > 500
    held = search(risky(), Target(below=0.2), constraints=Constraints(fixed=FREE))
    assert (held.found, held.reached) == ((), False)
    there = search(risky(), Target(above=0.5))
    assert (there.found, there.reached) == ((), True)


@pytest.mark.parametrize("to", [0, 1, 2])
def test_another_class_is_a_target_too(to: int) -> None:
    model, columns = fitted("multiclass")
    probability = model.predict(columns)
    values = row(columns, int(np.flatnonzero(probability.argmax(axis=1) != to)[0]))
    found = search(values, Target(to=to), "multiclass")
    assert found.found
    for one in found.found:
        assert int(np.argmax(one.predicted)) == to
        assert sum(one.predicted) == pytest.approx(1)


def test_of_two_classes_the_other_side_of_a_half_is_the_other_class() -> None:
    assert search(risky(), Target(to=0)).found[0].predicted[0] < 0.5
    assert search(risky(), Target(to=1)).reached


def test_a_number_can_rise_or_fall() -> None:
    model, columns = fitted("regression")
    values = row(columns, 3)
    score = asked(model, values)
    assert search(values, Target(above=score + 1), "regression").found[0].predicted[0] > score + 1
    assert search(values, Target(below=score - 1), "regression").found[0].predicted[0] < score - 1


def test_keys_ids_instants_and_what_is_computed_cannot_be_changed_by_themselves() -> None:
    assert changeable(delivery) == ("km", "at_depot__minutes_mean_7d", "at_depot__count_1d", "place__size_last")
    free = changeable(eta)
    assert {"planned_minutes", "departure_delay", "distance_km", "vehicle__over_plan_last", "network__pace_mean_1d"} <= set(free)
    assert not {
        "origin",
        "destination",
        "carrier",
        "trip_id",
        "departed_at",
        "timezone",
        "local_hour",
        "trip_km",
        "pair",
        "day_part",
    } & set(free)


def test_answers_follow_a_column_through_the_functions_that_read_it() -> None:
    model, columns = fitted("binary")
    dearer = {**columns, "amount": columns["amount"] * 10}
    assert recomputing(model.predict, [ratio])(dearer).mean() > model.predict(dearer).mean() + 0.1
    assert [function.name for function in functions_of(delivery)] == ["hour"]


@ms.feature
def known(seen, shop):  # type: ignore[no-untyped-def]
    return np.array([float(one in many) for one, many in zip(shop, seen, strict=True)])


def test_a_function_may_read_lists() -> None:
    rng = np.random.default_rng(0)
    columns: Columns = {"shop": rng.choice(list("stu"), 500).astype(object), "seen": np.empty(500, dtype=object)}
    columns["seen"][:] = [["s", "t"]] * 500
    columns["known"] = known(columns["seen"], columns["shop"])
    examples = Examples({"known": columns["known"]}, columns["known"])
    model = fit_model(ms.Linear(), ["known"], examples, examples, threads=1)
    values = {"shop": "u", "seen": ["s", "t"], "known": 0.0}
    found = counterfactuals(model, values, Target(above=0.5), columns, ["shop"], functions=[known])
    assert found.found[0].changes[0].after in ("s", "t")
    assert str(found.found[0].follows[0]) == "known 0 -> 1"


def test_changes_that_only_help_together_are_found() -> None:
    rng = np.random.default_rng(0)
    columns: Columns = {f"f{i}": rng.integers(0, 4, 4_000).astype(float) for i in range(16)}
    columns["f15"] = rng.choice(["x", "y"], 4_000).astype(object)
    label = ((columns["f3"] > 2) & (columns["f7"] > 2) & (columns["f15"] == "y")).astype(float)
    model = fit_model(ms.LightGBM(trees=40, leaves=8), list(columns), Examples(columns, label), Examples(columns, label), threads=1)
    values = {**{f"f{i}": 1.0 for i in range(15)}, "f15": "x"}
    found = counterfactuals(model, values, Target(above=0.5), columns, list(columns))
    assert [str(one) for one in found.found] == ["f3 1 -> 3, f7 1 -> 3, f15 x -> y"]
    assert not counterfactuals(model, values, Target(above=0.5), columns, list(columns), most=2).found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Target(), "give one of below, above and to"),
        (lambda: Target(below=1.0, to=1), "give one of below, above and to"),
        (lambda: search(risky(), Target(below=0.2), constraints=Constraints(fixed=["agee"])), "no feature 'agee'. Did you mean 'age'"),
        (lambda: search(risky(), Target(below=0.2), constraints=Constraints(increase=["country"])), "'country' is no number"),
        (lambda: counterfactuals(*fitted("binary")[:1], risky(), Target(below=0.2), fitted("binary")[1], []), "no feature may change"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        make()


def test_a_row_that_the_model_cannot_answer_is_refused_as_in_serving() -> None:
    columns: Columns = {"plan": np.arange(1.0, 201.0), "hour": np.tile([1.0, 2.0], 100)}
    examples = Examples(columns, columns["plan"] + columns["hour"])
    model = fit_model(ms.LightGBM(trees=5, offset="plan"), ["plan", "hour"], examples, examples, threads=1)
    with pytest.raises(ServingError, match="'plan' is null"):
        counterfactuals(model, {"plan": None, "hour": 1.0}, Target(below=1.0), columns, ["hour"])
