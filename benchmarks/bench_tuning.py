"""Ways to tune on the fraud set: the best validation average precision that each finds, in what time and how many rounds.

Every way but the last two has as many trials, of as many rounds at most; those two spend the rounds of random search on more trials.
Settings are chosen on one week; what they are worth is told by refitting them a fortnight later, on the published training week,
and scoring the published test week. But for that test week, one honest payment in `THINNED` is taken, with as much weight.
How early stopping decides was itself chosen on four weeks before these: see docs/decisions/0045-early-stopping.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from fraud_weeks import TEST, VALIDATION, Weeks
from harness import QUICK, Bar, bar, write
from sklearn.metrics import average_precision_score

from mainspring.models.protocol import Rows
from mainspring.training.adapters.lightgbm import BoostingRounds
from mainspring.training.tuning.search import Search
from mainspring.training.tuning.space import Int, Real, Space
from mainspring.training.tuning.tune import EarlyStopping, Found, tune

TRIALS, ROUNDS, SEEDS = (18, 27, 1) if QUICK else (27, 81, 5)
MORE = TRIALS * 7 // 3
"""Trials that random draws with extrapolation afford on the rounds of random search; those by TPE afford half more."""
THINNED = 4
FIXED = {"objective": "binary", "max_bin": 63}
SPACE: Space = {
    "learning_rate": Real(0.01, 0.5, log=True),
    "num_leaves": Int(4, 64, log=True),
    "min_data_in_leaf": Int(5, 200, log=True),
    "lambda_l2": Real(0.01, 30.0, log=True),
    "feature_fraction": Real(0.4, 1.0),
}
WAYS: dict[str, dict[str, Any]] = {
    "grid": {"sampler": "grid"},
    "random": {"sampler": "random"},
    "TPE": {"sampler": "tpe"},
    "Gaussian process": {"sampler": "gp"},
    "Hyperband, as published": {"sampler": "random", "pruner": "hyperband", "first_step": 3, "reduction": 3},
    "ASHA, as published": {"sampler": "random", "pruner": "asha", "first_step": 3, "reduction": 3},
    "ASHA": {"sampler": "random", "pruner": "asha"},
    "extrapolation": {"sampler": "random", "pruner": "extrapolation"},
    "TPE with extrapolation": {"sampler": "tpe", "pruner": "extrapolation"},
    "extrapolation, equal rounds": {"sampler": "random", "pruner": "extrapolation", "trials": MORE},
    "TPE with extrapolation, equal rounds": {"sampler": "tpe", "pruner": "extrapolation", "trials": TRIALS * 3 // 2},
}


BARS = {"extrapolation": (0.5, 0.002), "extrapolation, equal rounds": (0.0, 0.0)}
"""By way, the share of rounds that it saves at least and the average precision that it loses at most."""


def thinned(rows: Rows) -> Rows:
    """All frauds and a sample of the rest, weighted for what is left out."""
    kept = (rows.y == 1) | (np.arange(len(rows)) % THINNED == 0)
    return Rows(rows.x[kept], rows.y[kept], np.where(rows.y[kept] == 1, 1.0, THINNED))


def search(way: str, seed: int, objective: EarlyStopping, folder: Path) -> Found:
    """One search by one way."""
    declared = Search(SPACE, **{"trials": TRIALS, "seed": seed, "steps": ROUNDS, "pruner": None, **WAYS[way]})
    return tune(declared, objective, folder)


def test_score(found: Found, weeks: Weeks, seed: int) -> float:
    """Average precision of the best settings on the published test week, by scikit-learn, with the rounds that were best."""
    train, test, rounds = thinned(weeks.train(TEST)), weeks.judge(TEST), _best_rounds(found, weeks, seed)
    return _fitted_score(train, test, found, rounds, seed)


def _best_rounds(found: Found, weeks: Weeks, seed: int) -> int:
    scores: list[float] = []
    fit = _fit(thinned(weeks.train(VALIDATION)), thinned(weeks.judge(VALIDATION)), seed)

    def enough(_: int, score: float) -> bool:
        scores.append(score)
        return False

    fit(found.best.settings, enough)
    if not np.isclose(max(scores), found.best.value or 0.0, rtol=1e-9):
        raise SystemExit("The best trial's value does not come again")
    return int(np.argmax(scores)) + 1


def _fitted_score(train: Rows, test: Rows, found: Found, rounds: int, seed: int) -> float:
    import lightgbm

    parameters = {**FIXED, "seed": seed, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    booster = lightgbm.train({**parameters, **found.best.settings}, lightgbm.Dataset(train.x, train.y, weight=train.weight), rounds)
    return float(average_precision_score(test.y, booster.predict(test.x)))


def _fit(train: Rows, judge: Rows, seed: int) -> BoostingRounds:
    return BoostingRounds(train, judge, "average_precision", ROUNDS, FIXED, seed=seed)


def main() -> int:
    """The table: every way with every seed, in turn."""
    weeks = Weeks(Path(os.environ["MAINSPRING_DATA"]))
    found: dict[str, list[Found]] = {way: [] for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(SEEDS):
            objective = EarlyStopping(_fit(thinned(weeks.train(VALIDATION)), thinned(weeks.judge(VALIDATION)), seed), patience=ROUNDS)
            for way in WAYS:
                started = time.perf_counter()
                found[way].append(search(way, seed, objective, Path(scratch) / f"{way}-{seed}"))
                seconds[way].append(time.perf_counter() - started)
                print(f"seed {seed}, {way}: {found[way][-1].best.value:.4f} in {seconds[way][-1]:.0f} s", file=sys.stderr)
    bars = []
    for way in WAYS:
        bars += _table(way, found[way], seconds[way], weeks)
    return write("tuning", [*bars, *_verdicts(found)])


def _table(way: str, found: list[Found], seconds: list[float], weeks: Weeks) -> list[Bar]:
    return [
        bar(f"{way}: best validation AP", "AP", [one.best.value or 0.0 for one in found]),
        bar("  AP on the published test week", "AP", [test_score(one, weeks, seed) for seed, one in enumerate(found)]),
        bar("  time", "s", seconds),
        bar("  trials", "", [float(len(one.trials)) for one in found]),
        bar("  boosting rounds", "", [float(one.steps) for one in found]),
    ]


def _verdicts(found: dict[str, list[Found]]) -> list[Bar]:
    """Early stopping against the same sampler without it, seed by seed: random draws are the same settings in the same order.

    How a `Search` stops by itself is held to a bar, at equal trials and at equal rounds; other ways to stop are reported beside it.
    """
    bars, plain = [], found["random"]
    for way, chosen in WAYS.items():
        if "pruner" not in chosen:
            continue
        against = "TPE" if chosen["sampler"] == "tpe" else "random"
        pairs = list(zip(found[way], found[against], strict=True))
        lost = [(b.best.value or 0.0) - (a.best.value or 0.0) for a, b in pairs]
        saved = [1 - a.steps / b.steps for a, b in pairs]
        least, most = BARS.get(way, (None, None))
        bars.append(bar(f"{way}: rounds saved against {against}", "", saved, bar=least, above=True))
        bars.append(bar("  best validation AP lost", "AP", lost, bar=most))
    tpe = [(a.best.value or 0.0) - (b.best.value or 0.0) for a, b in zip(found["TPE"], plain, strict=True)]
    return [*bars, Bar("TPE: best validation AP gained on random search", statistics.median(tpe), "AP", (min(tpe), max(tpe)))]


if __name__ == "__main__":
    sys.exit(main())
