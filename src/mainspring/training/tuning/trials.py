"""One trial from its beginning to its end, wherever its objective runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from mainspring.training.adapters.optuna import Begun, Study
from mainspring.training.tracking.running import Running
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.tuning.search import Trial
from mainspring.training.tuning.space import Settings

Report = Callable[[int, float], None]
Objective = Callable[[Settings, Report], float]


class Stopped(Exception):  # noqa: N818
    """A trial is not worth going on with; raised by ``report``, and to be let through."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an objective ended: ``state`` and ``error`` as in `Trial`; ``value`` where it finished."""

    state: str
    value: float | None = None
    error: str = ""


def attempt(objective: Objective, settings: Settings, report: Report) -> Outcome:
    """Run an objective to its end, whatever that is."""
    try:
        value = float(objective(settings, report))
    except Stopped:
        return Outcome("stopped")
    except Exception as error:
        return Outcome("failed", error=f"{type(error).__name__}: {error}")
    return Outcome("finished", value) if math.isfinite(value) else Outcome("failed", error=f"its value is {value}")


class UnderWay:
    """A trial under way: what it reports and how it ends goes to its study and, with one, to its run."""

    def __init__(self, study: Study, begun: Begun, run: Running | None) -> None:
        self.number, self.settings = begun.number, begun.settings
        self._study, self._begun, self._run = study, begun, run
        self._started = time.perf_counter()
        self._steps = 0
        self._last: float | None = None

    def told(self, step: int, value: float) -> bool:
        """Take note of a value at a step; whether to stop. A step counts once, also where a worker died and another begins anew."""
        if step <= self._steps:
            return False
        self._steps, self._last = step, value
        if self._run is not None:
            self._run.step(step, {"validation/value": value})
        return self._study.stops(self._begun, step, value)

    def report(self, step: int, value: float) -> None:
        """Take note of a value at a step.

        Raises:
            Stopped: the pruner says so.
        """
        if self.told(step, value):
            raise Stopped(f"trial {self.number} at step {step}")

    def end(self, outcome: Outcome) -> None:
        """Record how it ended; the value of a stopped trial is the last that it reported."""
        value = self._last if outcome.state == "stopped" else outcome.value
        seconds = time.perf_counter() - self._started
        trial = Trial(self.number, self.settings, value, outcome.state, self._steps, seconds, outcome.error)
        self._study.end(self._begun, trial)
        if self._run is not None:
            self._run.metrics({"validation/value": math.nan if value is None else value, "steps": self._steps})
            self._run.note({"trial": outcome.state})
            self._run.end("failed" if outcome.error else "finished", outcome.error)


@dataclass(frozen=True, slots=True)
class Trials:
    """Where trials come from, one after another; with a ``tracker`` each is a run under ``parent``. None begins after ``deadline``."""

    study: Study
    name: str
    seed: int
    deadline: float
    tracker: Tracker | None
    parent: str | None

    def begin(self) -> UnderWay | None:
        """The next trial; None when all have begun or it is too late."""
        if time.time() >= self.deadline or (begun := self.study.begin()) is None:
            return None
        if self.tracker is None:
            return UnderWay(self.study, begun, None)
        parameters = {**begun.settings, "trial": begun.number}
        return UnderWay(self.study, begun, self.tracker.start(self.name, parameters=parameters, seed=self.seed, parent=self.parent))
