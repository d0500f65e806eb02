"""Tuning a System's model: what is searched for, by which measure, on which rows, and that what is reported is what is fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delivery
import mainspring as ms
from mainspring.clock import DAY
from mainspring.errors import DeclarationError, TrainingError
from mainspring.storage.tables import Tables
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model
from mainspring.training.train import split
from mainspring.training.tuning.fits import fits_of, judged_by
from mainspring.training.tuning.search import Search
from mainspring.training.tuning.space import Choice, Int, Real
from mainspring.training.tuning.spaces import SPACES, line, rounded, tunable
from mainspring.training.tuning.tune import tune


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    space = delivery.build(tmp_path_factory.mktemp("fits"))
    return DatasetBuilder(delivery.system, Tables(space.tables)).build(None, delivery.NOW)


def test_no_trial_sees_the_holdout_of_the_gate(dataset: Dataset) -> None:
    fits = fits_of(delivery.system, tunable(delivery.system.model), dataset)
    sides = split(delivery.system, dataset)
    before, holdout = sides.train, sides.test
    assert len(fits.examples) + len(fits.validation) < len(before)
    seen = np.concatenate([fits.examples.columns["km"], fits.validation.columns["km"]])
    assert not set(seen.tolist()) & set(holdout.columns["km"].tolist())
    cut = delivery.NOW - 14 * DAY
    chosen = (before.as_of < cut) & (before.label_known_at < cut)
    assert (fits.examples.label == before.label[chosen]).all()
    assert (fits.validation.label == before.label[before.as_of >= cut]).all()
    short = replace(delivery.system, model=replace(delivery.system.model, holdout="20d"))
    with pytest.raises(TrainingError, match="shorten the sides, or ingest more history"):
        fits_of(short, tunable(short.model), dataset)


def test_the_measure_is_what_was_promised_or_what_the_task_asks_for() -> None:
    system = delivery.system
    assert judged_by(system) == "mae"
    promised = replace(system, requirements=ms.Requirements(quality=[ms.between("coverage", 0.7, 0.9), ms.at_most("rmse", 9)]))
    assert judged_by(promised) == "rmse"
    assert judged_by(replace(system, requirements=ms.Requirements(), model=ms.LightGBM(objective="binary"))) == "average_precision"
    assert judged_by(replace(system, requirements=ms.Requirements(), model=ms.LightGBM(objective="quantile", quantile=0.9))) == "pinball"


@pytest.mark.parametrize("named", ["roc_auc", "bias", "coverage", "maee"])
def test_a_measure_that_does_not_fit_is_refused(dataset: Dataset, named: str) -> None:
    with pytest.raises(DeclarationError, match=f"cannot be tuned for '{named}'"):
        fits_of(delivery.system, tunable(delivery.system.model), dataset, named)


def test_a_search_finds_settings_that_judge_again_as_reported(dataset: Dataset, tmp_path: Path) -> None:
    fits = fits_of(delivery.system, tunable(delivery.system.model, ["trees=20..60"]), dataset)
    assert (fits.goal, fits.tunable.steps) == ("minimize", 60)
    found = tune(Search(fits.tunable.space, "random", trials=8, goal=fits.goal, steps=60), fits, tmp_path)
    assert found.best.value == fits.judge(fits.tunable.with_settings(found.best.settings))
    assert {trial.state for trial in found.trials} == {"finished", "stopped"}
    assert found.best.value is not None
    assert found.best.value < fits.judge(replace(delivery.system.model, trees=5))


_X = np.random.default_rng(0).normal(size=(400, 3))
_ROWS = {"a": _X[:, 0], "b": _X[:, 1], "c": _X[:, 2]}


@pytest.mark.parametrize(
    "model",
    [
        ms.LightGBM(trees=7, offset="c"),
        ms.LightGBM(trees=7, objective="binary", negatives=0.5),
        ms.XGBoost(trees=7, offset="c"),
        ms.XGBoost(trees=7, objective="binary", negatives=0.5),
        ms.Net(epochs=3, hidden=(4,), patience=9),
    ],
    ids=lambda model: f"{type(model).__name__}-{model.task}",
)
def test_a_watched_fit_is_the_same_and_tells_what_it_predicts(model: Any) -> None:
    y = (_X[:, 0] > 0.3).astype(float) if model.task == "binary" else _X[:, 0] + _X[:, 2]
    examples = Examples(_ROWS, y)
    seen: list[tuple[int, Any]] = []
    watched = fit_model(
        model, ["a", "b", "c"], examples, examples, threads=1, watch=lambda number, predicted: seen.append((number, predicted.copy()))
    )
    alone = fit_model(model, ["a", "b", "c"], examples, examples, threads=1)
    assert (watched.predict(_ROWS) == alone.predict(_ROWS)).all()
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == (3 if isinstance(model, ms.Net) else 7)
    if not isinstance(model, ms.Net):
        assert seen[-1][1] == pytest.approx(watched.predict(_ROWS), abs=1e-6)
    errors = [np.abs(predicted - y).mean() for _, predicted in seen]
    assert errors[-1] < errors[0]


def test_a_watched_fit_with_patience_keeps_its_best_round() -> None:
    y = np.random.default_rng(1).normal(size=400)
    examples, held_out = Examples(_ROWS, y), Examples(_ROWS, y[::-1].copy())
    for model in (ms.LightGBM(trees=50, patience=3), ms.XGBoost(trees=50, patience=3)):
        seen: list[int] = []
        watched = fit_model(model, ["a", "b", "c"], examples, held_out, threads=1, watch=lambda number, _, seen=seen: seen.append(number))
        assert len(seen) < 50
        assert (watched.predict(_ROWS) == fit_model(model, ["a", "b", "c"], examples, held_out, threads=1).predict(_ROWS)).all()


def test_what_is_said_comes_over_the_space_of_the_kind() -> None:
    said = ["learning_rate=0.1..0.2", "leaves=8..16:log", "objective=regression|regression_l1", "l2=0", "trees=100"]
    found = tunable(ms.LightGBM(), said)
    assert found.space["learning_rate"] == Real(0.1, 0.2)
    assert found.space["leaves"] == Int(8, 16, log=True)
    assert found.space["objective"] == Choice(["regression", "regression_l1"])
    assert "l2" not in found.space
    assert (found.model, found.steps) == (ms.LightGBM(l2=0, trees=100), 100)
    assert tunable(ms.LightGBM(), ["trees=100..200"]).steps == 200
    assert tunable(ms.Net()).steps == 20
    assert tunable(ms.Linear()).steps is None
    assert tunable(ms.Net(), ["hidden=(8,)|(16, 8)"]).space["hidden"] == Choice([(8,), (16, 8)])


def test_an_estimator_of_scikit_learn_has_settings_of_its_own() -> None:
    trees = ms.Sklearn(estimator="sklearn.ensemble.ExtraTreesRegressor", settings={"max_depth": 3})
    with pytest.raises(DeclarationError, match=r"nothing to tune. Name a range: --set max_depth=3..12"):
        tunable(trees)
    found = tunable(trees, ["max_depth=2..8", "n_estimators=50"])
    assert found.space == {"max_depth": Int(2, 8)}
    assert dict(found.with_settings({"max_depth": 4}).settings) == {"max_depth": 4, "n_estimators": 50}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("leafs=3..9", "no setting 'leafs'. Did you mean 'leaves'"),
        ("seed=1..9", "no setting 'seed'"),
        ("leaves", "is no range. Write name=low..high"),
        ("leaves=few..many", "no range of numbers"),
        ("learning_rate=0.3..0.1", "low end must be below"),
        ("l2=0..1:log", "begins above 0"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_the_mend(said: str, told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        tunable(ms.LightGBM(), [said])


@pytest.mark.parametrize("model", [ms.LightGBM(), ms.XGBoost(), ms.Linear(), ms.Net()], ids=lambda model: type(model).__name__)
def test_a_line_of_declaration_gives_the_model_again(model: Any) -> None:
    rng = np.random.default_rng(0)
    found = tunable(model)
    assert found.space == SPACES[type(model)]
    settings = rounded({name: one.value(rng.random(one.width).tolist()) for name, one in found.space.items()})
    declared = replace(found.with_settings(settings), holdout="7d")
    assert eval(line(declared), {"ms": ms}) == declared
    assert line(model) == f"ms.{type(model).__name__}()"


def test_a_split_with_a_test_side_is_searched_on_its_validation_side(dataset: Dataset) -> None:
    def declared(split_: Any, **other: Any) -> ms.System:
        return replace(delivery.system, model=replace(delivery.system.model, split=split_, **other))

    apart = declared(ms.TimeSplit("5d", test="4d"))
    fits, sides = fits_of(apart, tunable(apart.model), dataset), split(apart, dataset)
    assert (fits.validation.label == sides.validation.label).all()
    assert (fits.examples.label == sides.train.label).all()
    alone = declared(ms.GroupSplit(0.3, seed=7), group="depot")
    with pytest.raises(DeclarationError, match="has no test side"):
        fits_of(alone, tunable(alone.model), dataset)
