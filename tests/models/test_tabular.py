from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainspring.columns import to_array, to_values
from mainspring.errors import ServingError
from mainspring.models.conformal import ConformalInterval, QuantileInterval
from mainspring.models.encoding import Encoder
from mainspring.models.learners import learner
from mainspring.models.protocol import Rows
from mainspring.models.tabular import TabularModel
from mainspring.schema import Type

PLAN = np.tile([10.0, 20.0, 40.0], 100)
HOUR = np.tile([1.0, 2.0], 150)


def fitted(plan: np.ndarray) -> TabularModel:
    columns = {"plan": plan, "hour": HOUR}
    encoder = Encoder.fit(columns, ["plan", "hour"])
    settings = {"trees": 20, "leaves": 4, "learning_rate": 0.3, "min_leaf_rows": 5}
    rows = Rows(encoder.transform(columns), HOUR)
    booster = learner("lightgbm", settings).fit(rows, names=["plan", "hour"], categorical=[], held_out=None, seed=0, threads=1)
    return TabularModel(encoder, "lightgbm", settings, booster, "plan", float(np.nanmean(plan)))


def test_the_trees_correct_the_offset() -> None:
    model = fitted(PLAN)
    assert model.predict_row([40.0, 2.0])[0] == pytest.approx(42.0, abs=0.1)
    assert model.predict({"plan": np.array([40.0]), "hour": np.array([2.0])})[0] == model.predict_row([40.0, 2.0])[0]


def test_an_offset_that_was_never_null_in_training_may_not_be_null_in_a_row() -> None:
    model = fitted(PLAN)
    with pytest.raises(ServingError, match="'plan' is null"):
        model.predict_row([None, 2.0])
    assert model.predict({"plan": np.array([np.nan]), "hour": np.array([2.0])})[0] == pytest.approx(22.0, abs=0.1)


def test_an_offset_that_was_null_in_training_is_nothing_there() -> None:
    model = fitted(np.where(HOUR == 1.0, np.nan, PLAN))
    assert model.predict_row([None, 1.0])[0] == pytest.approx(1.0, abs=0.1)
    restored = TabularModel.from_artifacts(model.to_artifacts())
    assert restored.predict_row([None, 1.0]) == model.predict_row([None, 1.0])


@pytest.mark.parametrize("interval", [None, "conformal", "quantiles"])
def test_columns_give_what_rows_give_to_the_bit(interval: str | None) -> None:
    rng = np.random.default_rng(0)
    plan, place = rng.uniform(10, 40, 300), np.array([*"abc"] * 100, dtype=object)
    size = np.where(rng.random(300) < 0.2, np.nan, rng.uniform(0, 9, 300))
    columns = {"plan": plan, "place": place, "size": size}
    encoder = Encoder.fit(columns, list(columns))
    settings = {"trees": 20, "leaves": 4, "learning_rate": 0.3, "min_leaf_rows": 5}
    x = encoder.transform(columns)

    def trees(target: np.ndarray) -> Any:
        return learner("lightgbm", settings).fit(
            Rows(x, target), names=list(columns), categorical=["place"], held_out=None, seed=0, threads=1
        )

    bounds: Any = None
    if interval == "conformal":
        bounds = ConformalInterval.fit(plan, plan + rng.normal(size=300), (0.1, 0.9))
    if interval == "quantiles":
        bounds = QuantileInterval.fit(trees(-plan), trees(plan), x, plan, (0.1, 0.9))
    model = TabularModel(encoder, "lightgbm", settings, trees(rng.normal(size=300)), "plan", 25.0, bounds)
    place[::7] = None
    place[1::7] = "never seen"
    rows = list(zip(*(to_values(column) for column in columns.values()), strict=True))
    assert model.predict_columns(columns) == model.predict_rows(rows)
    columns["size"] = to_array([1, None] * 150, Type.INT)
    rows = list(zip(*(to_values(column) for column in columns.values()), strict=True))
    assert model.predict_columns(columns) == model.predict_rows(rows)


def test_columns_of_one_row_or_of_a_null_offset_are_left_to_the_rows() -> None:
    model = fitted(PLAN)
    assert model.predict_columns({"plan": np.array([10.0]), "hour": np.array([1.0])}) is None
    assert model.predict_columns({"plan": np.array([10.0, np.nan]), "hour": np.array([1.0, 2.0])}) is None
    good, bad = model.predict_rows([(10.0, 1.0), (None, 2.0)])
    assert good == model.predict_row((10.0, 1.0))
    assert isinstance(bad, ServingError)
