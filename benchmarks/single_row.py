"""One row in process: ours beside the libraries' own call, to the bit, on random, missing, categorical and on-threshold rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
from harness import QUICK, Bar, bar, interleaved

from mainspring.models.adapters.lightgbm import Booster, LightGBMLearner
from mainspring.models.adapters.xgboost import MODEL, Trees, XGBoostLearner
from mainspring.models.protocol import Floats, Predictor, Rows

ROUNDS, CALLS, CHECKED = (3, 500, 2_000) if QUICK else (9, 2_000, 10_000)
WIDTH, CATEGORIES = 30, 50
NAMES = [f"f{number}" for number in range(WIDTH)]


def single_row_bars() -> list[Bar]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, WIDTH))
    x[:, -1] = rng.integers(0, CATEGORIES, len(x))
    y = x[:, 0] + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + (x[:, -1] % 7 == 0)
    rows = Rows(x, y)
    ours = LightGBMLearner(trees=200, leaves=31).fit(rows, names=NAMES, categorical=[NAMES[-1]], threads=1)
    trees = XGBoostLearner(trees=200, depth=5).fit(rows, names=NAMES, threads=1)
    own, xgboost = lightgbm.Booster(model_str=ours.ensemble.text), trees._model
    bars = _timed("LightGBM", ours, lambda row: own.predict(row[None, :], num_threads=1), x, 2.5)
    bars += _timed("XGBoost", trees, lambda row: xgboost.inplace_predict(row[None, :].astype(np.float32)), x, 3.0)
    for name, model, splits in (("LightGBM", ours, _splits(ours)), ("XGBoost", trees, _xgboost_splits(trees))):
        differing = [float(_differing(model, one)) for one in _cases(splits, rng).values()]
        bars.append(bar(f"{name}: rows that differ, of 4 x {CHECKED:,}", "rows", [sum(differing)], bar=0.0))
    return bars


def _timed(name: str, model: Predictor, plain: Callable[[Floats], Any], x: Floats, wanted: float) -> list[Bar]:
    sides = {"ours": lambda: _median_us(model.predict_row, x), "plain": lambda: _median_us(plain, x)}
    took = interleaved(ROUNDS, sides)
    ratios = [plain / ours for ours, plain in zip(took["ours"], took["plain"], strict=True)]
    return [
        bar(f"{name}: one row", "us", took["ours"], peer=float(np.median(took["plain"]))),
        bar(f"{name}: times as fast as its own call", "x", ratios, bar=wanted, above=True),
    ]


def _median_us(call: Callable[[Floats], Any], x: Floats) -> float:
    times = []
    for row in x[:CALLS]:
        started = time.perf_counter_ns()
        call(row)
        times.append(time.perf_counter_ns() - started)
    return float(np.median(times)) / 1e3


def _cases(splits: list[tuple[int, float]], rng: np.random.Generator) -> dict[str, Floats]:
    plain, missing, categorical, on_threshold = (rng.normal(size=(CHECKED, WIDTH)) for _ in range(4))
    missing[rng.random(missing.shape) < 0.3] = np.nan
    categorical[:, -1] = rng.integers(-1, CATEGORIES + 5, CHECKED)
    for row, place in zip(on_threshold, rng.integers(0, len(splits), CHECKED), strict=True):
        column, value = splits[place]
        row[column] = value
    return {"random": plain, "missing": missing, "categorical": categorical, "on threshold": on_threshold}


def _differing(model: Predictor, x: Floats) -> int:
    return int((np.array([model.predict_row(row)[0] for row in x]) != model.predict(x)).sum())


def _splits(booster: Booster) -> list[tuple[int, float]]:
    frame = [tree["tree_structure"] for tree in booster.ensemble.dump()["tree_info"]]
    found = []
    while frame:
        node = frame.pop()
        if "split_feature" in node:
            if node["decision_type"] == "<=":
                found.append((int(node["split_feature"]), float(node["threshold"])))
            frame += [node["left_child"], node["right_child"]]
    return found


def _xgboost_splits(trees: Trees) -> list[tuple[int, float]]:
    held = json.loads(trees.to_artifacts()[MODEL])["learner"]["gradient_booster"]["model"]["trees"]
    each = (zip(tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True) for tree in held)
    return [(column, value) for tree in each for column, value, left in tree if left != -1]
