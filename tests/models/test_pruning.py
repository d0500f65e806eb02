from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from mainspring.errors import TrainingError
from mainspring.models.learners import learner
from mainspring.models.protocol import Rows
from mainspring.models.pruning import Prune, prune
from mainspring.spec import LightGBM, Linear

X, Y = load_diabetes(return_X_y=True)
NAMES = tuple(f"c{i}" for i in range(X.shape[1]))
ROWS = Rows(X, Y)


def test_the_last_trees_go() -> None:
    kind, settings = LightGBM(trees=40, leaves=8).learner
    whole = learner(kind, settings).fit(ROWS, names=NAMES, categorical=(), held_out=None, seed=0, threads=1)
    made, left = prune(kind, whole, settings, Prune(0.25), ROWS, ())
    assert left["trees"] == 30
    shorter = learner(kind, {**settings, "trees": 30}).fit(ROWS, names=NAMES, categorical=(), held_out=None, seed=0, threads=1)
    assert made.predict(X).tolist() == shorter.predict(X).tolist()
    assert len(made.to_artifacts()["model.txt"]) < 0.85 * len(whole.to_artifacts()["model.txt"])
    back = learner(kind, left).load(made.to_artifacts(), NAMES)
    assert np.array([back.predict_row(row)[0] for row in X[:50]]).tolist() == made.predict(X[:50]).tolist()


def test_other_kinds_are_refused_by_name() -> None:
    kind, settings = Linear().learner
    fitted = learner(kind, settings).fit(ROWS, names=NAMES, categorical=(), held_out=None, seed=0, threads=1)
    with pytest.raises(TrainingError, match="kind 'linear' cannot be pruned"):
        prune(kind, fitted, settings, Prune(), ROWS, ())
