"""Searches: samplers find what is there, pruners save steps, a kill loses and doubles nothing."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import DeclarationError, TrainingError
from mainspring.models.protocol import Rows
from mainspring.training.adapters.lightgbm import BoostingRounds
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.tuning.extrapolation import looks, reach
from mainspring.training.tuning.search import Search
from mainspring.training.tuning.space import Choice, Int, Real, decode, draw, encode, grid
from mainspring.training.tuning.tune import EarlyStopping, Found, Report, tune

SPACE = {"rate": Real(1e-4, 1.0, log=True), "depth": Int(1, 12), "kind": Choice(["a", None, 3])}


def hill(settings: dict[str, Any], report: Report) -> float:
    """Best, with the value 0, at rate 0.01, depth 5 and kind None."""
    off = abs(math.log10(settings["rate"]) + 2) / 2 + abs(settings["depth"] - 5) / 6 + (settings["kind"] is not None)
    return -off


def learning(settings: dict[str, Any], report: Report) -> float:
    """Learns for 81 steps towards its hill."""
    for step in range(1, 82):
        report(step, hill(settings, report) - math.exp(-step / 20))
    return hill(settings, report) - math.exp(-81 / 20)


def slow(settings: dict[str, Any], report: Report) -> float:
    time.sleep(0.05)
    with open(os.environ["TRIED"], "a") as file:
        file.write(f"{settings['rate']!r}\n")
    return hill(settings, report)


def test_ranges_map_to_the_unit_cube_and_back() -> None:
    for seed in range(50):
        settings = draw(SPACE, np.random.default_rng(seed))
        again = decode(SPACE, encode(SPACE, settings))
        assert again == {**settings, "rate": pytest.approx(settings["rate"])}
    drawn = [draw(SPACE, np.random.default_rng(seed)) for seed in range(600)]
    assert {one["depth"] for one in drawn} == set(range(1, 13))
    assert {one["kind"] for one in drawn} == {"a", None, 3}
    assert 0.4 < np.mean([one["rate"] < 1e-2 for one in drawn]) < 0.6


def test_a_grid_is_as_fine_as_the_trials_allow() -> None:
    points = grid(SPACE, 27)
    assert len(points) == 27
    assert {one["depth"] for one in points} == {1, 6, 12}
    assert [one["rate"] for one in points[::9]] == pytest.approx([1e-4, 1e-2, 1.0])
    with pytest.raises(DeclarationError, match="3 combinations"):
        grid(SPACE, 2)


@pytest.mark.parametrize(("sampler", "within"), [("grid", 0.6), ("random", 0.8), ("tpe", 0.35), ("gp", 0.25)])
def test_samplers_find_the_hill(tmp_path: Path, sampler: Any, within: float) -> None:
    found = tune(Search(SPACE, sampler=sampler, trials=40, seed=1), hill, tmp_path)
    assert found.best.value is not None
    assert found.best.value > -within
    assert found.best.value == max(trial.value or -9 for trial in found.trials)
    assert len(found.trials) == (36 if sampler == "grid" else 40)
    assert [trial.number for trial in found.trials] == list(range(len(found.trials)))


@pytest.mark.parametrize("pruner", ["hyperband", "asha", "extrapolation"])
def test_pruners_save_steps_and_find_as_good(tmp_path: Path, pruner: Any) -> None:
    plain = tune(Search(SPACE, sampler="random", trials=40, seed=2), learning, tmp_path / "plain")
    search = Search(SPACE, sampler="random", pruner=pruner, trials=40, seed=2, steps=81, first_step=3, reduction=3)
    pruned = tune(search, learning, tmp_path / "pruned")
    assert plain.steps == 40 * 81
    assert pruned.steps < plain.steps / 2
    assert pruned.best.settings == plain.best.settings
    stopped = [trial for trial in pruned.trials if trial.state == "stopped"]
    assert {trial.steps for trial in stopped} <= (set(looks(3, 81)) if pruner == "extrapolation" else {3, 9, 27, 81})
    assert all(search.judges(trial.steps) for trial in stopped)


def test_where_steps_are_known_a_search_stops_early_by_itself(tmp_path: Path) -> None:
    assert tune(Search(SPACE, trials=12), learning, tmp_path / "unknown").steps == 12 * 81
    assert tune(Search(SPACE, trials=12, steps=81), learning, tmp_path / "known").steps < 12 * 81
    assert Search(SPACE, steps=81).first_rung == 9
    assert not Search(SPACE, steps=81, pruner=None).judges(9)


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_extrapolation_stops_alike_up_and_down(tmp_path: Path, goal: Any) -> None:
    sign = 1 if goal == "maximize" else -1

    def objective(settings: Any, report: Report) -> float:
        return sign * learning(settings, lambda step, value: report(step, sign * value))

    found = tune(Search(SPACE, "random", trials=12, steps=81, goal=goal), objective, tmp_path)
    up = tune(Search(SPACE, "random", trials=12, steps=81), learning, tmp_path / "up")
    assert [trial.steps for trial in found.trials] == [trial.steps for trial in up.trials]
    assert found.best.value == sign * (up.best.value or 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 3), st.floats(1, 200)), min_size=2, max_size=30), st.integers(10, 300))
def test_extrapolation_loses_nothing_where_curves_bend_down(curves: list[tuple[float, float, float]], steps: int) -> None:
    """Each curve is ``start + height * (1 - exp(-step / pace))``: one that is stopped could not have become the best."""
    best = -math.inf
    for start, height, pace in curves:
        values = {step: start + height * -math.expm1(-step / pace) for step in (*looks(max(steps // 9, 1), steps), steps)}
        seen: dict[int, float] = {}
        for step in list(values)[:-1]:
            seen[step] = values[step]
            if reach(seen, steps) < best - 1e-9:
                assert values[steps] < best
                break
        else:
            best = max(best, values[steps])
    assert best == max(start + height * -math.expm1(-steps / pace) for start, height, pace in curves)


@given(st.integers(1, 50), st.integers(2, 1_000))
def test_looks_are_further_and_further_apart(first: int, steps: int) -> None:
    at = looks(first, steps)
    assert all(a < b for a, b in itertools.pairwise(at))
    assert (not at) == (first >= steps)
    assert all(first <= step < steps for step in at)


def test_a_search_is_the_same_again_and_goes_on(tmp_path: Path) -> None:
    def tried(found: Found) -> list[Any]:
        return [(dict(trial.settings), trial.value) for trial in found.trials]

    for sampler in ("grid", "random", "tpe", "gp"):
        search = Search(SPACE, sampler=sampler, trials=16, seed=3)  # type: ignore[arg-type]
        whole = tune(search, hill, tmp_path / sampler / "whole")
        assert tried(tune(search, hill, tmp_path / sampler / "again")) == tried(whole)
        if sampler != "grid":
            tune(Search(SPACE, sampler=sampler, trials=7, seed=3), hill, tmp_path / sampler / "parts")  # type: ignore[arg-type]
            assert tried(tune(search, hill, tmp_path / sampler / "parts")) == tried(whole)


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    tune(Search(SPACE, trials=2), hill, tmp_path)
    with pytest.raises(DeclarationError, match="holds another search"):
        tune(Search({"rate": Real(0, 1)}, trials=2), hill, tmp_path)


def failing(settings: dict[str, Any], report: Report) -> float:
    if settings["kind"] is None:
        raise ZeroDivisionError("no kind")
    return math.nan if settings["kind"] == "a" else 1.0


def test_a_trial_that_fails_counts_and_says_why(tmp_path: Path) -> None:
    found = tune(Search(SPACE, sampler="random", trials=12), failing, tmp_path / "some")
    assert {trial.error for trial in found.trials} == {"", "ZeroDivisionError: no kind", "its value is nan"}
    assert found.best.settings["kind"] == 3
    with pytest.raises(TrainingError, match=r"none of 3 trials finished\. ZeroDivisionError: no kind"):
        tune(Search({**SPACE, "kind": Choice([None])}, trials=3), failing, tmp_path / "none")


def test_no_trial_begins_after_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIED", str(tmp_path / "tried"))
    found = tune(Search(SPACE, sampler="random", trials=1_000, timeout=0.5), slow, tmp_path / "search")
    assert 1 <= len(found.trials) <= 10


def test_every_trial_is_a_run(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "runs")
    search = Search(SPACE, sampler="random", pruner="asha", trials=9, first_step=3, reduction=3)
    found = tune(search, learning, tmp_path / "search", tracker=tracker, name="hill")
    (parent,) = [run for run in tracker.runs("hill") if run.parent is None]
    runs = tracker.runs(parent=parent.id)
    assert parent.metrics["validation/value"] == found.best.value
    assert [run.parameters["trial"] for run in runs] == [trial.number for trial in found.trials]
    for run, trial in zip(runs, found.trials, strict=True):
        assert run.notes["trial"] == trial.state
        assert len(tracker.curves(run)["validation/value"].step) == trial.steps
    tracker.close()


SEARCH = Search(SPACE, sampler="tpe", trials=40, seed=4)


def _started(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    code = f"import test_tune as t; from pathlib import Path; t.tune(t.SEARCH, t.slow, Path({str(folder)!r}), workers={workers})"
    script = folder.with_name("script.py")
    script.write_text(f"if __name__ == '__main__':\n    {code}\n")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path})


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed_no_trial_is_lost_or_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    tried = tmp_path / "tried"
    monkeypatch.setenv("TRIED", str(tried))
    folder = tmp_path / "search"
    for kill_after in (8, 18):
        process = _started(folder, workers)
        while not tried.exists() or len(tried.read_text().splitlines()) < kill_after:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = tune(SEARCH, slow, folder, workers=workers)
    assert len(found.trials) == SEARCH.trials
    rates = [repr(trial.settings["rate"]) for trial in found.trials]
    assert len(set(rates)) == SEARCH.trials
    assert set(tried.read_text().splitlines()) == set(rates)
    if workers == 1:
        whole = tune(SEARCH, slow, tmp_path / "whole")
        assert rates == [repr(trial.settings["rate"]) for trial in whole.trials]


def dying(settings: dict[str, Any], report: Report) -> float:
    os._exit(3)


def test_a_worker_that_dies_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"worker-0 \(3\), worker-1 \(3\) died. Start it again"):
        tune(Search(SPACE, trials=4), dying, tmp_path, workers=2)
    assert len(tune(Search(SPACE, trials=4), hill, tmp_path).trials) == 4


def test_boosting_is_stopped_when_it_no_longer_gains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 5))
    y = (x[:, 0] + rng.normal(0, 1, 2_000) > 1).astype(float)
    fit = BoostingRounds(Rows(x[:1_000], y[:1_000]), Rows(x[1_000:], y[1_000:]), "average_precision", 200, {"objective": "binary"})
    objective = EarlyStopping(fit, patience=20)
    seen: list[tuple[int, float]] = []
    best = objective({"num_leaves": 15}, lambda step, value: seen.append((step, value)))
    assert 20 < len(seen) < 200
    assert best == seen[-1][1] == seen[-21][1] > seen[-22][1]
    search = Search({"num_leaves": Int(2, 31), "learning_rate": Real(0.01, 0.3, log=True)}, "random", "asha", 12, first_step=4)
    found = tune(search, objective, tmp_path)
    assert found.best.value is not None
    assert found.best.value > y.mean()
    assert json.dumps([dict(trial.settings) for trial in found.trials])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"space": {}}, "space is empty"),
        ({"sampler": "tpee"}, "Did you mean 'tpe'"),
        ({"pruner": "ash"}, "Did you mean 'asha'"),
        ({"pruner": "hyperband"}, "needs steps"),
        ({"trials": 0}, "trials >= 1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        Search(**{"space": SPACE, **given})
    with pytest.raises(DeclarationError, match="low end"):
        Int(3, 3)
    with pytest.raises(DeclarationError, match="above 0"):
        Real(0, 1, log=True)
