from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import ServingError
from mainspring.models.encoding import Encoder
from mainspring.models.learners import learner
from mainspring.models.protocol import Rows
from mainspring.models.tabular import TabularModel

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
