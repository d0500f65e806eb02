"""What one evaluation costs: 50,000 held-out rows, 18 columns searched, three of them declared slices, two rivals. CPU seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from harness import QUICK, bar, interleaved, write

from mainspring.clock import DAY
from mainspring.evaluation.evaluate import Held, evaluate
from mainspring.evaluation.measuring import Answers
from mainspring.evaluation.record import Evaluation
from mainspring.spec import Costs, at_least, at_most, between

ROWS, DAYS, ROUNDS = 50_000, 14, 1 if QUICK else 5
BY = ("c0", "c1", "f0")


def _held(truth: np.ndarray, rng: np.random.Generator) -> Held:
    columns = {f"f{i}": rng.normal(size=ROWS) for i in range(15)}
    columns |= {f"c{i}": rng.choice(np.array(list("abcdefgh"), dtype=object), ROWS) for i in range(3)}
    return Held(truth, np.sort(rng.integers(0, DAYS * DAY, ROWS)), columns, BY)


def classes(rng: np.random.Generator) -> Callable[[], Evaluation]:
    """Two classes with every score different: what is dearest to sort."""
    risk = 1 / (1 + np.exp(-rng.normal(-3, 1.5, ROWS)))
    truth = (rng.random(ROWS) < risk).astype(float)
    held, rivals = _held(truth, rng), {"flat": np.full(ROWS, truth.mean()), "champion": risk**1.1}
    asked = [at_least("recall", 0.05, at_alert_rate=0.005), at_most("brier", 1.0, of="flat")]
    return lambda: evaluate("binary", held, Answers(risk), rivals, qualities=asked, costs=Costs(tp=5, fp=5, fn=100))


def numbers(rng: np.random.Generator) -> Callable[[], Evaluation]:
    """Numbers with an interval."""
    truth = rng.normal(100, 20, ROWS)
    score = truth + rng.normal(0, 5, ROWS)
    held, rivals = _held(truth, rng), {"flat": np.full(ROWS, 100.0), "champion": truth + rng.normal(0, 5, ROWS)}
    asked = [at_most("mae", 0.5, of="flat"), between("coverage", 0.8, 0.95)]
    return lambda: evaluate("regression", held, Answers(score, score - 8, score + 8), rivals, qualities=asked)


def main() -> int:
    """Time both and write the bars."""
    rng = np.random.default_rng(0)
    sides = {"two classes": classes(rng), "numbers": numbers(rng)}
    times = interleaved(ROUNDS, {name: lambda side=side: _timed(side) for name, side in sides.items()})  # type: ignore[misc]
    return write("evaluation", [bar(f"{ROWS:,} rows, {name}", "CPU s", values, bar=5.0) for name, values in times.items()])


def _timed(side: Callable[[], Evaluation]) -> float:
    started = time.process_time()
    found = side()
    if found.rows != ROWS or any(one.value is None for one in found.measures):
        raise SystemExit("the evaluation lacks a measure")
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
