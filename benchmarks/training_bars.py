"""The platform beside LightGBM on the same arrays: time and peak memory of a fit, each in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np
from harness import QUICK, Bar, bar, interleaved

ROWS, COLUMNS, TREES, ROUNDS = (100_000, 50, 20, 2) if QUICK else (1_000_000, 50, 100, 5)
HELD_OUT = ROWS // 10
SETTINGS = {"objective": "regression", "learning_rate": 0.05}
THREADS = 2
Columns = dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]


def training_bars() -> list[Bar]:
    """Seconds and peak memory of `fit_model` against `lightgbm.train`, whose trees must be the same."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}

    def measured(side: str) -> float:
        done = subprocess.run([sys.executable, __file__, side], capture_output=True, text=True, check=True)
        found[side].append(json.loads(done.stdout.splitlines()[-1]))
        return found[side][-1]["seconds"]

    interleaved(ROUNDS, {side: lambda side=side: measured(side) for side in SIDES})  # type: ignore[misc]
    if len({one["sum"] for runs in found.values() for one in runs}) != 1:
        raise SystemExit("the two sides do not predict the same")
    ours, plain = found["ours"], found["lightgbm"]
    seconds, peak = (float(np.median([one[what] for one in plain])) for what in ("seconds", "bytes"))
    ratios = {what: [a[what] / b[what] for a, b in zip(ours, plain, strict=True)] for what in ("seconds", "bytes")}
    shape = f"{ROWS / 1e6:g} M x {COLUMNS}, {TREES} trees"
    return [
        bar(f"fit {shape}", "s", [one["seconds"] for one in ours], floor=seconds),
        bar("  time to LightGBM's on the same arrays", "x", ratios["seconds"], bar=1.05),
        bar("  peak memory", "GiB", [one["bytes"] / 2**30 for one in ours], floor=peak / 2**30),
        bar("  peak memory to LightGBM's", "x", ratios["bytes"], bar=1.3),
    ]


def _rows(rows: int, seed: int) -> tuple[Columns, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    rng = np.random.default_rng(seed)
    columns = {f"f{i}": rng.normal(size=rows) for i in range(COLUMNS)}
    return columns, columns["f0"] + np.sin(3 * columns["f1"]) + columns["f2"] * columns["f3"] + rng.normal(size=rows)


def _ours() -> tuple[float, float]:
    from mainspring.spec import LightGBM
    from mainspring.training.examples import Examples
    from mainspring.training.fitting import fit_model

    examples, held_out = (Examples(*_rows(rows, seed)) for rows, seed in ((ROWS, 0), (HELD_OUT, 1)))
    started = time.perf_counter()
    model = fit_model(LightGBM(trees=TREES, **SETTINGS), list(examples.columns), examples, held_out, threads=THREADS)  # type: ignore[arg-type]
    return time.perf_counter() - started, float(model.predict(held_out.columns).sum())


def _lightgbm() -> tuple[float, float]:
    """As its users call it: a matrix of the columns, a data set, the booster; with the settings that the platform gives it."""
    import lightgbm

    from mainspring.spec import LightGBM

    declared = LightGBM()
    (columns, label), (held_out, _) = _rows(ROWS, 0), _rows(HELD_OUT, 1)
    started = time.perf_counter()
    x = np.column_stack(list(columns.values()))
    settings = {"max_bin": declared.bins, "lambda_l2": declared.l2, "min_data_in_leaf": declared.min_leaf_rows, "seed": declared.seed}
    steady = {"deterministic": True, "force_row_wise": True, "num_threads": THREADS, "verbosity": -1}
    booster = lightgbm.train({**SETTINGS, **settings, **steady}, lightgbm.Dataset(x, label), TREES)
    seconds = time.perf_counter() - started
    return seconds, float(np.asarray(booster.predict(np.column_stack(list(held_out.values())))).sum())


SIDES = {"ours": _ours, "lightgbm": _lightgbm}

if __name__ == "__main__":
    import lightgbm  # noqa: F401

    seconds, total = SIDES[sys.argv[1]]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak, "sum": total}))
