"""Searches on Ray Tune: it places trials on workers and runs them; what is tried, stopped and recorded the study decides.

What Ray Tune keeps of an experiment is pickled and never read again: the study's journal is the record, and a search that was
killed is taken up from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainspring.training.adapters.ray_cluster import cluster
from mainspring.training.tuning.trials import Objective, Outcome, Trials, UnderWay, attempt

RETRIES = 3
"""How often a trial is tried again whose worker died."""
_TOLD = 300


def tune_on_ray(address: str, trials: Trials, objective: Objective, scratch: Path, workers: int, look: Callable[[], None]) -> None:
    """Try all ``trials`` on so many workers of the cluster at ``address``, one core each; ``look`` is called when one has ended.

    The objective travels by cloudpickle; this package must be installed on the workers. ``scratch`` holds what Ray Tune writes meanwhile.

    Raises:
        DeclarationError: this is no such address.
        MissingExtraError: Ray is not installed.
        TrainingError: there is no cluster at the address.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    with cluster(address, workers) as ray:
        searcher, scheduler = _parts(ray.tune, trials, look)
        config = ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            metric="value",
            mode="max",
        )
        failing = ray.tune.FailureConfig(max_failures=RETRIES)
        run = ray.tune.RunConfig(name="trials", storage_path=str(scratch.absolute()), failure_config=failing, verbose=0)
        trainable = ray.tune.with_parameters(_attempted, objective=objective)
        ray.tune.Tuner(trainable, tune_config=config, run_config=run).fit()
    shutil.rmtree(scratch, ignore_errors=True)


def _attempted(settings: dict[str, Any], objective: Objective) -> dict[str, Any]:
    """What a worker does: a trial, with a result a report and one for its end."""
    from ray import tune

    def report(step: int, value: float) -> None:
        tune.report({"step": step, "value": value})

    outcome = attempt(objective, settings, report)
    return {"step": 0, "value": outcome.value, "state": outcome.state, "error": outcome.error}


def _parts(tune: Any, trials: Trials, look: Callable[[], None]) -> tuple[Any, Any]:
    """A searcher that proposes what the study does, and a scheduler that stops what it stops; both are pickled as nothing."""
    under_way: dict[str, UnderWay] = {}
    died: dict[str, str] = {}

    class Proposals(tune.search.Searcher):  # type: ignore[misc]
        def suggest(self, trial_id: str) -> Any:
            begun = trials.begin()
            if begun is None:
                return self.FINISHED
            under_way[trial_id] = begun
            return dict(begun.settings)

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            why = f"its worker died {RETRIES + 1} times: {died[trial_id]}" if error else ""
            under_way.pop(trial_id).end(_outcome(result or {}, why))
            look()

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()

        def __reduce__(self) -> Any:
            return object, ()

    class Stops(tune.schedulers.FIFOScheduler):  # type: ignore[misc]
        def on_trial_error(self, _: Any, trial: Any) -> None:
            died[trial.trial_id] = " ".join(Path(trial.error_file).read_text().split())[:_TOLD]

        def on_trial_result(self, _: Any, trial: Any, result: dict[str, Any]) -> Any:
            if "state" in result:
                return self.CONTINUE
            return self.STOP if under_way[trial.trial_id].told(result["step"], result["value"]) else self.CONTINUE

        def __reduce__(self) -> Any:
            return object, ()

    return Proposals(), Stops()


def _outcome(result: dict[str, Any], why: str) -> Outcome:
    if why:
        return Outcome("failed", error=why)
    return Outcome(result.get("state", "stopped"), result.get("value"), result.get("error", ""))
