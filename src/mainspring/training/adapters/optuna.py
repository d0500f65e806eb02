"""Searches on Optuna: its journal file, its Parzen estimator, its pruners; grid, random and Gaussian process are our own.

The Gaussian process of Optuna needs PyTorch. Every trial is seeded by its place in the search, so that a search that was killed
goes on as it would have gone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.errors import DeclarationError, MissingExtraError
from mainspring.storage.durable import locked
from mainspring.training.tuning import gaussian_process
from mainspring.training.tuning.extrapolation import reach
from mainspring.training.tuning.search import Search, Trial
from mainspring.training.tuning.space import Choice, Int, Range, decode, draw, encode, grid

STARTUP_TRIALS = 10
"""Trials at random before a sampler learns from what came."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A trial under way."""

    number: int
    settings: Mapping[str, Any]
    handle: Any


class Study:
    """The trials of one search in ``folder/journal.log``, shared by processes: one `Study` each.

    Raises:
        DeclarationError: the folder holds another search.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, folder: Path, search: Search) -> None:
        self._optuna, self._folder, self._search = _optuna(), folder, search
        self._space = {name: _distribution(self._optuna, one) for name, one in search.space.items()}
        self._grid = grid(search.space, search.trials) if search.sampler == "grid" else []
        journal = self._optuna.storages.journal
        with locked(folder / "ask"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lock = _KernelLock(folder / "journal.lock")
            storage = self._optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / "journal.log"), lock_obj=lock))
            self._study = self._optuna.create_study(
                study_name=f"search-{search.seed}", storage=storage, load_if_exists=True, direction=search.goal, pruner=self._pruner()
            )
            self._check()

    def begin(self) -> Begun | None:
        """The next trial; None when all have begun. No two processes begin the same."""
        states = self._optuna.trial.TrialState
        with locked(self._folder / "ask"):
            known = [one for one in self._study.get_trials(deepcopy=False) if "orphan" not in one.user_attrs]
            if not any(one.state == states.WAITING for one in known):
                if len(known) >= (len(self._grid) or self._search.trials):
                    return None
                self._propose(known)
            trial = self._study.ask(self._space)
        return Begun(trial.number, self._to_settings(trial.params), trial)

    def stops(self, begun: Begun, step: int, value: float) -> bool:
        """Take note of a trial's value at a step, where a pruner decides; whether it says to stop."""
        if not self._search.judges(step):
            return False
        begun.handle.report(value, step)
        return bool(begun.handle.should_prune())

    def end(self, begun: Begun, trial: Trial) -> None:
        """Record how a trial ended."""
        states = self._optuna.trial.TrialState
        kept = {"state": trial.state, "value": trial.value, "steps": trial.steps, "seconds": trial.seconds, "error": trial.error}
        begun.handle.set_user_attr("trial", json.dumps(kept))
        if trial.state == "finished":
            self._study.tell(begun.handle, trial.value)
        else:
            self._study.tell(begun.handle, state=states.PRUNED if trial.state == "stopped" else states.FAIL)

    def release(self) -> None:
        """Set aside the trials that a killed process has left, and queue their settings again; to be called while no process works."""
        states, trials = self._optuna.trial.TrialState, self._study.get_trials(deepcopy=False)
        again = {one.user_attrs.get("again") for one in trials}
        for one in trials:
            if one.state != states.RUNNING:
                continue
            if set(one.params) == set(self._space) and one.number not in again:
                self._study.enqueue_trial(one.params, user_attrs={"again": one.number})
            handle = self._optuna.trial.Trial(self._study, one._trial_id)
            handle.set_user_attr("orphan", True)
            self._study.tell(handle, state=states.FAIL)

    def trials(self) -> list[Trial]:
        """The trials that have ended, by number."""
        return [
            Trial(one.number, self._to_settings(one.params), **json.loads(one.user_attrs["trial"]))
            for one in self._study.get_trials(deepcopy=False)
            if one.state.is_finished() and "orphan" not in one.user_attrs
        ]

    def _propose(self, known: list[Any]) -> None:
        """Settle what the next trial tries: by the Parzen estimator when it is asked, else queued here."""
        place, space = len(known), self._search.space
        rng = np.random.default_rng([self._search.seed, place])
        if self._search.sampler == "tpe":
            seed = int(rng.integers(1 << 31))
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        elif self._search.sampler == "grid":
            order = np.random.default_rng(self._search.seed).permutation(len(self._grid))
            self._queue(self._grid[order[place]])
        else:
            self._queue(self._by_process(known, rng) if self._search.sampler == "gp" else draw(space, rng))

    def _by_process(self, known: list[Any], rng: np.random.Generator) -> dict[str, Any]:
        space, sign = self._search.space, 1.0 if self._search.goal == "maximize" else -1.0
        bodies = [(one, json.loads(one.user_attrs["trial"])) for one in known if "trial" in one.user_attrs]
        tried = [(self._to_settings(one.params), sign * body["value"]) for one, body in bodies if body["value"] is not None]
        if len(tried) < STARTUP_TRIALS:
            return draw(space, rng)
        x = np.array([encode(space, settings) for settings, _ in tried])
        return decode(space, gaussian_process.propose(x, np.array([value for _, value in tried]), rng))

    def _queue(self, settings: Mapping[str, Any]) -> None:
        choices = {name: one.values.index(settings[name]) for name, one in self._search.space.items() if isinstance(one, Choice)}
        self._study.enqueue_trial({**settings, **choices})

    def _to_settings(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Choices travel as their place in the declaration, so that any value can be chosen."""
        ranges = self._search.space
        return {name: one.values[parameters[name]] if isinstance(one, Choice) else parameters[name] for name, one in ranges.items()}

    def _pruner(self) -> Any:
        search, pruners = self._search, self._optuna.pruners
        if search.pruner == "hyperband":
            return pruners.HyperbandPruner(min_resource=search.first_rung, max_resource=search.steps, reduction_factor=search.reduction)
        if search.pruner == "asha":
            return pruners.SuccessiveHalvingPruner(min_resource=search.first_rung, reduction_factor=search.reduction)
        return pruners.NopPruner() if search.pruner is None or search.steps is None else _Extrapolation(search.steps, search.goal)

    def _check(self) -> None:
        search = self._search
        declared = repr([search.space, search.sampler, search.pruner, search.seed, search.goal, search.steps, search.first_step])
        kept = self._study.user_attrs.get("search")
        if kept is None:
            self._study.set_user_attr("search", declared)
        elif kept != declared:
            raise DeclarationError(f"Search in {self._folder}: the folder holds another search. Name a new folder, or declare the same.")


@dataclass(frozen=True, slots=True)
class _Extrapolation:
    """What Optuna asks of a pruner: stops a trial that cannot reach the best finished one."""

    steps: int
    goal: str

    def prune(self, study: Any, trial: Any) -> bool:
        sign = 1.0 if self.goal == "maximize" else -1.0
        best = max((sign * one.value for one in study.get_trials(deepcopy=False) if one.state.name == "COMPLETE"), default=None)
        most = reach({step: sign * value for step, value in trial.intermediate_values.items()}, self.steps)
        return best is not None and not most >= best


class _KernelLock:
    """A lock for Optuna's journal that a killed holder lets go of; its own would make the next one wait for 30 s."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        self._held.enter_context(locked(self._path))
        return True

    def release(self) -> None:
        self._held.close()


def _distribution(optuna: Any, one: Range) -> Any:
    if isinstance(one, Choice):
        return optuna.distributions.CategoricalDistribution(tuple(range(len(one.values))))
    kind = optuna.distributions.IntDistribution if isinstance(one, Int) else optuna.distributions.FloatDistribution
    return kind(one.low, one.high, log=one.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("Tuning", "optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
