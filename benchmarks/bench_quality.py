"""How good the platform's defaults are: every set with the same settings for its kind of task, beside a floor and a plain model.

Nothing is tuned to a set: what differs is the declaration of features. Writes ``results/quality.json``, and unless a short run was
asked for ``docs/benchmarks/quality.md``. `MAINSPRING_DATA` names the folder of data sets.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import quality_eta
import quality_fraud
import quality_ranks
import quality_texts
from harness import QUICK, Bar, write
from quality_lines import Line, Measure

from mainspring.loop.evidence import commit, machine

AREAS, THREADS = (quality_eta.lines, quality_fraud.lines, quality_ranks.lines, quality_texts.lines), 1
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "quality.md"
HEAD = """# Quality of the defaults

What the platform reaches on real and published sets as it comes: the same settings for each kind of task, none chosen for a set. Only
the declaration of features differs. Each line is measured on the set's usual protocol. Settings were chosen on training and validation
parts ([0042](../decisions/0042-text-is-scored.md), [0044](../decisions/0044-defaults.md), [0050](../decisions/0050-terms-that-tell.md),
[0051](../decisions/0051-trees-by-task.md)); where there are five folds, on the training part of the first, which the other four judge.

    MAINSPRING_DATA=/path/to/sets make bench-quality

writes this page and `benchmarks/results/quality.json`; `QUICK=1` is a short run of fewer sets, folds and seeds, which leaves the page
alone.

The interval of 95 % draws rows, days, customers or queries with replacement. *Floor* is what a strong plain model or rule reached on the
same split before; *plain* is the model named last, fitted in this run to the same rows; *to plain* is the ratio of the two (above 1 is
better where more is better).

The floor of the flights from gate to gate is the declared rule `recent_ratio`, computed in this run; that in the air is the same rule with
labels a day late, while the platform's features know an arrival when it happens.

| set | measure | platform | floor | holds | plain | to plain | what was run | plain model |
|---|---|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Every set in turn, then the table."""
    folder = os.environ.get("MAINSPRING_DATA", "")
    if not Path(folder).is_dir() or not folder:
        raise SystemExit("MAINSPRING_DATA must name the folder of data sets")
    found: list[Line] = []
    with ProcessPoolExecutor(len(AREAS), mp_context=get_context("spawn")) as pool:
        started = time.perf_counter()
        for lines in [pool.submit(area, Path(folder), THREADS) for area in AREAS]:
            found += lines.result()
            print(
                f"{len(found)} lines after {time.perf_counter() - started:.0f} s, the last of them {found[-1].name}",
                file=sys.stderr,
                flush=True,
            )
    if not QUICK:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(HEAD + "".join(map(_row, found)) + f"\nMeasured on {machine()}, commit {commit()}.\n")
        print(f"Wrote {PAGE}")
    return write("quality", [_bar(line, one) for line in found for one in line.measures])


def _row(line: Line) -> str:
    every = line.measures
    cells = [
        line.name,
        "<br>".join(f"{one.name}{f' ({one.unit})' if one.unit else ''}" for one in every),
        "<br>".join(map(_shown, every)),
        "<br>".join("" if one.floor is None else f"{one.floor:g}" for one in every),
        "<br>".join("yes" if one.holds else "**no**" for one in every),
        "<br>".join(_number(one.plain, one) for one in every),
        "<br>".join(f"{one.value / one.plain:.3f}" for one in every),
        line.run,
        line.plain,
    ]
    return f"| {' | '.join(cells)} |\n"


def _shown(one: Measure) -> str:
    low, high = (_number(value, one) for value in one.interval)
    return f"{_number(one.value, one)} ({low} to {high})"


def _number(value: float, one: Measure) -> str:
    return f"{value:.1f}" if one.unit else f"{value:.4f}"


def _bar(line: Line, one: Measure) -> Bar:
    return Bar(f"{line.name}: {one.name}", one.value, one.unit, one.interval, peer=one.plain, bar=one.floor, above=one.higher)


if __name__ == "__main__":
    sys.exit(main())
