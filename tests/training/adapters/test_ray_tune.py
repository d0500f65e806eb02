"""Searches over real Ray workers on this machine: the same search, whoever dies."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.errors import DeclarationError, MissingExtraError, TrainingError
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.tuning.search import Search
from mainspring.training.tuning.space import Int, Real
from mainspring.training.tuning.trials import Report
from mainspring.training.tuning.tune import tune

SEARCH = Search({"rate": Real(1e-4, 1.0, log=True), "depth": Int(1, 12)}, "random", trials=10, seed=2, steps=81)


def learning(settings: dict[str, Any], report: Report) -> float:
    """Learns for 81 steps; best at rate 0.01 and depth 5. At a depth above 10 it fails."""
    if settings["depth"] > 10:
        raise ZeroDivisionError("too deep")
    end = -abs(math.log10(settings["rate"]) + 2) / 2 - abs(settings["depth"] - 5) / 6
    for step in range(1, 82):
        report(step, end - math.exp(-step / 20))
    return end - math.exp(-81 / 20)


def slowly(settings: dict[str, Any], report: Report) -> float:
    with open(os.environ["TRIED"], "a") as file:
        file.write(f"{settings['rate']!r}\n")
    time.sleep(0.3)
    return learning(settings, report)


@pytest.mark.parametrize("over", ["dask:somewhere", "ray://somewhere:10001"])
def test_another_address_is_refused(tmp_path: Path, over: str) -> None:
    with pytest.raises(DeclarationError, match=f"'{over}' is no address of Ray"):
        tune(SEARCH, learning, tmp_path, over=over)


def test_without_ray_the_mend_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mainspring\[ray\]'"):
        tune(SEARCH, learning, tmp_path, over="ray")


@pytest.mark.parametrize("over", ["ray:127.0.0.1:1", "ray:nowhere"])
def test_where_there_is_no_cluster_that_is_told(tmp_path: Path, over: str) -> None:
    pytest.importorskip("ray", reason="the long suites install it")
    with pytest.raises(TrainingError, match=f"Ray at '{over}': .*ray start --head"):
        tune(SEARCH, learning, tmp_path, over=over)


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the long suites install it")
    from mainspring.training.adapters.ray_cluster import cluster

    with cluster("ray", 2):
        assert ray.is_initialized()
        yield
    assert not ray.is_initialized()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("_cluster")
class TestOverRay:
    def test_ray_finds_what_this_process_finds(self, tmp_path: Path) -> None:
        tracker, seen = Tracker(tmp_path / "runs"), list[int]()
        here = tune(SEARCH, learning, tmp_path / "here")
        there = tune(
            SEARCH, learning, tmp_path / "there", workers=2, over="ray", tracker=tracker, progress=lambda ended: seen.append(len(ended))
        )
        assert there.best.settings == here.best.settings
        assert there.best.value == here.best.value
        assert [trial.settings for trial in there.trials] == [trial.settings for trial in here.trials]
        assert {trial.state for trial in there.trials} == {"finished", "stopped", "failed"}
        assert {trial.error for trial in there.trials} == {"", "ZeroDivisionError: too deep"}
        assert there.steps < 10 * 81
        assert seen == [*range(1, 11), 10]
        runs = [run for run in tracker.runs("search") if run.parent is not None]
        assert [run.parameters["trial"] for run in runs] == list(range(10))
        for run, trial in zip(runs, there.trials, strict=True):
            curves = tracker.curves(run)
            assert len(curves["validation/value"].step if trial.steps else []) == trial.steps
        assert tune(SEARCH, learning, tmp_path / "there", workers=2, over="ray").best == there.best
        assert not (tmp_path / "there" / "ray").exists()
        tracker.close()

    def test_a_trial_is_tried_again_whose_worker_died(self, tmp_path: Path) -> None:
        def dying(settings: dict[str, Any], report: Report) -> float:
            if settings["depth"] < 6 and not (tmp_path / "died").exists():
                report(9, -5.0)
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return learning(settings, report)

        found = tune(SEARCH, dying, tmp_path / "search", workers=1, over="ray")
        assert (tmp_path / "died").exists()
        assert [trial.settings for trial in found.trials] == [trial.settings for trial in tune(SEARCH, learning, tmp_path / "here").trials]
        assert {trial.error for trial in found.trials} == {"", "ZeroDivisionError: too deep"}

    def test_a_trial_whose_workers_all_die_fails_and_says_so(self, tmp_path: Path) -> None:
        def dying(settings: dict[str, Any], report: Report) -> float:
            os._exit(3)

        one = Search(SEARCH.space, "random", trials=1)
        with pytest.raises(TrainingError, match=r"its worker died 4 times: .* died unexpectedly"):
            tune(one, dying, tmp_path, over="ray")


@pytest.mark.long
def test_a_killed_search_over_ray_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the long suites install it")
    tried = tmp_path / "tried"
    monkeypatch.setenv("TRIED", str(tried))
    script = tmp_path / "script.py"
    call = f"t.tune(t.SEARCH, t.slowly, Path({str(tmp_path / 'search')!r}), workers=2, over='ray')"
    script.write_text(f"if __name__ == '__main__':\n    import test_ray_tune as t\n    from pathlib import Path\n    {call}\n")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path})
    while not tried.exists() or len(tried.read_text().splitlines()) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = tune(SEARCH, slowly, tmp_path / "search")
    assert len(found.trials) == SEARCH.trials
    rates = [repr(trial.settings["rate"]) for trial in found.trials]
    assert len(set(rates)) == SEARCH.trials
    assert set(tried.read_text().splitlines()) == set(rates)
