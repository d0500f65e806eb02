"""Tuning: a declared search over settings, stopped early where it does not pay, resumed where it was killed."""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mainspring.errors import TrainingError
from mainspring.storage.durable import locked, make_directory
from mainspring.training.adapters.optuna import Study
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.tuning.search import Search, Trial
from mainspring.training.tuning.space import Settings
from mainspring.training.tuning.trials import Objective, Report, Trials, attempt

Enough = Callable[[int, float], bool]
RoundFit = Callable[[Settings, Enough], None]


Progress = Callable[[Sequence[Trial]], None]
LOOK_SECONDS = 0.5
"""How often a search in processes of its own looks for trials that have ended."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found: the best finished trial, all trials by number, and the seconds of this call."""

    best: Trial
    trials: tuple[Trial, ...]
    seconds: float

    @property
    def steps(self) -> int:
        """The steps of all trials together: epochs or boosting rounds spent."""
        return sum(trial.steps for trial in self.trials)


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """An objective from a fit that scores held-out rows after each round: the best score, given up after ``patience`` rounds without.

    ``fit(settings, enough)`` calls ``enough(round, score)`` after every round, from 1, and ends when that is true.
    """

    fit: RoundFit
    patience: int
    goal: Literal["maximize", "minimize"] = "maximize"

    def __call__(self, settings: Settings, report: Report) -> float:
        """The best score that the rounds reached; what is reported is the best so far."""
        sign = 1.0 if self.goal == "maximize" else -1.0
        best, since = -math.inf, 0

        def enough(number: int, score: float) -> bool:
            nonlocal best, since
            best, since = (sign * score, number) if sign * score > best else (best, since)
            report(number, sign * best)
            return number - since >= self.patience

        self.fit(settings, enough)
        return sign * best


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker works on; ``runs`` is the folder of the tracker and ``parent`` the run of the search."""

    search: Search
    folder: Path
    objective: Objective
    name: str
    runs: Path | None
    parent: str | None
    deadline: float

    def trials(self, tracker: Tracker | None) -> Trials:
        """The trials as one worker begins them."""
        return Trials(Study(self.folder, self.search), self.name, self.search.seed, self.deadline, tracker, self.parent)


def tune(
    search: Search, objective: Objective, folder: Path, *, workers: int = 1, over: str | None = None, tracker: Tracker | None = None,
    name: str = "search", progress: Progress | None = None,
) -> Found:  # fmt: skip
    """Search in ``folder``, where a search that was killed is taken up: its finished trials count, the broken one is tried again.

    ``objective(settings, report)`` gives the value of some settings; calling ``report(step, value)`` lets it be stopped by `Stopped`. With
    several ``workers`` it runs in processes of its own, started by spawn: it must be importable and picklable. ``over`` has it run by
    so many workers of Ray instead: ``"ray"`` on this machine, ``"ray:HOST:PORT"`` on the cluster there; the folder stays here. A trial
    whose objective fails counts and does not end the search. With a ``tracker`` the search and every trial is a run. ``progress`` is
    given the trials that have ended, again and again.

    Raises:
        DeclarationError: the folder holds another search, or ``over`` is no address.
        TrainingError: no trial finished, or a worker died.
        MissingExtraError: Optuna, or for ``over`` Ray, is not installed.
    """
    started = time.monotonic()
    make_directory(folder)
    with ExitStack() as held:
        held.enter_context(locked(folder / "lock"))
        for left in folder.glob("worker-*"):
            with locked(left):  # a worker whose parent was killed ends by itself
                pass
        study = Study(folder, search)
        study.release()
        run = None if tracker is None else held.enter_context(tracker.start(name, parameters=_described(search), seed=search.seed))
        deadline = math.inf if search.timeout is None else time.time() + search.timeout
        runs, parent = (None, None) if tracker is None or run is None else (tracker.path, run.id)
        job = _Job(search, folder, objective, name, runs, parent, deadline)

        def look() -> None:
            if progress is not None:
                progress(study.trials())

        if over is not None:
            from mainspring.training.adapters.ray_tune import tune_on_ray

            tune_on_ray(over, job.trials(tracker), objective, folder / "ray", workers, look)
        elif workers == 1:
            _work(job, tracker, look)
        else:
            _spawn(job, workers, look)
        look()
        found = _found(search, Study(folder, search).trials(), time.monotonic() - started)
        if run is not None:
            run.metrics({"validation/value": found.best.value or math.nan, "trials": len(found.trials), "steps": found.steps})
            run.note({name: repr(value) for name, value in found.best.settings.items()})
    return found


def _found(search: Search, trials: list[Trial], seconds: float) -> Found:
    finished = [trial for trial in trials if trial.state == "finished"]
    if not finished:
        errors = [trial.error for trial in trials if trial.error]
        raise TrainingError(f"Search: none of {len(trials)} trials finished. {errors[-1] if errors else 'Give it more time or steps.'}")
    choose = max if search.goal == "maximize" else min
    return Found(choose(finished, key=lambda trial: trial.value or 0.0), tuple(trials), seconds)


def _spawn(job: _Job, workers: int, look: Callable[[], None]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_worker, args=(job, number), name=f"worker-{number}") for number in range(workers)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            while process.is_alive():
                process.join(LOOK_SECONDS)
                look()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()
    died = [f"{process.name} ({process.exitcode})" for process in processes if process.exitcode]
    if died:
        raise TrainingError(f"Search in {job.folder}: {', '.join(died)} died. Start it again: it goes on where it stopped.")


def _worker(job: _Job, number: int) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with locked(job.folder / f"worker-{number}"), nullcontext() if job.runs is None else closing(Tracker(job.runs)) as tracker:
        _work(job, tracker)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _work(job: _Job, tracker: Tracker | None, look: Callable[[], None] = lambda: None) -> None:
    trials = job.trials(tracker)
    while (trial := trials.begin()) is not None:
        trial.end(attempt(job.objective, trial.settings, trial.report))
        look()


def _described(search: Search) -> Mapping[str, Any]:
    body = {name: getattr(search, name) for name in ("sampler", "pruner", "trials", "timeout", "goal", "steps", "first_step", "reduction")}
    return {**body, "space": {name: {"kind": type(one).__name__, **asdict(one)} for name, one in search.space.items()}}
