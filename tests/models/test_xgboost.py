from __future__ import annotations

import json

import numpy as np
import pytest

from mainspring.models.adapters.xgboost import MODEL, XGBoostLearner
from mainspring.models.protocol import Rows

NAMES = ("a", "b", "c", "d")


def fitted(objective: str, classes: int = 1):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 4))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x[:, 0] + x[:, 1])
    label = np.digitize(y, (-0.5, 0.5)) if classes == 3 else (y > 0).astype(float) if "logistic" in objective else y
    return XGBoostLearner(objective=objective, trees=40, classes=classes).fit(Rows(x, label.astype(float)), names=NAMES, threads=1)


@pytest.mark.parametrize(("objective", "classes"), [("reg:squarederror", 1), ("binary:logistic", 1), ("multi:softprob", 3)])
def test_a_single_row_is_that_of_many_to_the_bit(objective, classes):
    trained = fitted(objective, classes)
    trees = XGBoostLearner(objective=objective, classes=classes).load(trained.to_artifacts(), NAMES)
    assert trained.fast
    assert trees.fast
    model = json.loads(trees.to_artifacts()[MODEL])["learner"]["gradient_booster"]["model"]["trees"]
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 4))
    x[100:200][rng.random((100, 4)) < 0.5] = np.nan
    for row in x[200:]:
        tree = model[rng.integers(len(model))]
        place = int(rng.choice(np.flatnonzero(np.array(tree["left_children"]) != -1)))
        row[tree["split_indices"][place]] = tree["split_conditions"][place]
    rows = np.array([trees.predict_row(row) for row in x])
    assert np.array_equal(rows, trees.predict(x).reshape(rows.shape))


def test_rows_stay_apart_when_the_trees_go_on_being_used():
    trees = fitted("reg:squarederror")
    first = trees.predict_row(np.zeros(4))
    kept = first.copy()
    trees.predict(np.ones((50, 4)))
    trees.contributions(np.ones((5, 4)))
    trees.predict_row(np.full(4, 3.0))
    assert np.array_equal(first, kept)
    assert np.array_equal(trees.predict_row(np.zeros(4)), kept)
