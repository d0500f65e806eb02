"""One retraining: collect matured labels, fit anew or go on from the champion, judge on held-out rows, record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from mainspring.errors import RegistryError, TrainingError
from mainspring.evaluation.baselines import Rows, Truth
from mainspring.evaluation.card import Card, markdown
from mainspring.evaluation.evaluate import CHAMPION
from mainspring.evaluation.gate import GateResult, judge
from mainspring.evaluation.of_model import Candidate, evaluate_model
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.models.tabular import TabularModel
from mainspring.spec import System
from mainspring.training.dataset import Dataset, DatasetBuilder, Progress
from mainspring.training.reproduce import begin, complete
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import Start, Trained, fit, held_out, latency, register
from mainspring.training.versions import load_model, recorded


@dataclass(slots=True)
class Retrainer:
    """Trains versions of one System. ``code`` names the code version that is recorded with each; ``tracker`` records every run."""

    system: System
    registry: Registry
    builder: DatasetBuilder
    code: str
    threads: int = 2
    tracker: Tracker | None = None

    def dataset(self, at: int, progress: Progress | None = None) -> Dataset:
        """The training set as of ``at``, reaching back as far as the model's ``history`` says."""
        history = self.system.model.history_us
        return self.builder.build(None if history is None else at - history, at, progress)

    def train(
        self, dataset: Dataset, at: int, *, shuffle_labels: np.random.Generator | None = None, note: str = ""
    ) -> tuple[Version, GateResult]:
        """Fit as the model's ``retrain`` says; each way is a version that is gated and recorded, and the better one is returned.

        Where there is no champion to go on from, or too little that is new to it, the model is fitted anew, and the decision
        ``retrained`` says why.
        """
        declared = self.system.model.retrain
        if declared == "full" or shuffle_labels is not None:
            return self._train(dataset, at, shuffle_labels, note, None)
        made: dict[str, tuple[Version, GateResult]] = {}
        hindrance = ""
        try:
            made["incremental"] = self._train(dataset, at, None, note, self._start())
        except (TrainingError, RegistryError) as error:
            hindrance = str(error)
        if declared == "both" or not made:
            made["full"] = self._train(dataset, at, None, note, None)
        return self._better(made, hindrance, at)

    def _start(self) -> Start:
        """The champion to go on from.

        Raises:
            TrainingError: there is none.
            RegistryError: it does not load.
        """
        champion = self.registry.deployment(self.system.name).champion
        if champion is None:
            raise TrainingError("There is no champion to go on from.")
        version = self.registry.version(champion)
        return Start(champion, load_model(self.system, self.registry, version), int(recorded(self.registry, version)["until"]))

    def _better(self, made: Mapping[str, tuple[Version, GateResult]], hindrance: str, at: int) -> tuple[Version, GateResult]:
        """The one of less loss on the held-out rows; the comparison is recorded."""
        losses = {way: gate.metrics["loss"] for way, (_, gate) in made.items()}
        chosen = min(losses, key=lambda way: losses[way]["value"])
        evidence = {
            way: {"version": version.id, "loss": losses[way], **{name: version.manifest[name] for name in ("rows", "seconds", "bytes")}}
            for way, (version, _) in made.items()
        }
        told = ", ".join(f"{way} {loss['name']} {loss['value']:.4g}" for way, loss in losses.items())
        reason = f"{chosen} ({told}){f': {hindrance}' if hindrance else ''}"
        self.registry.decide(self.system.name, "retrained", made[chosen][0].id, at=at, by="loop", reason=reason, evidence=evidence)
        return made[chosen]

    def _train(
        self, dataset: Dataset, at: int, shuffle_labels: np.random.Generator | None, note: str, start: Start | None
    ) -> tuple[Version, GateResult]:
        """Fit, evaluate against baselines and champion, register, and record the run and the gate's decision."""
        with (
            nullcontext()
            if self.tracker is None
            else begin(
                self.tracker, self.system, dataset, threads=self.threads, shuffle_labels=shuffle_labels, start=start, note=note
            ) as run
        ):
            trained = fit(self.system, dataset, threads=self.threads, shuffle_labels=shuffle_labels, start=start)
            result = self._gate(trained)
            version = register(
                self.system,
                self.registry,
                trained,
                at=at,
                metrics=result.metrics,
                code=self.code,
                note=note,
                card=lambda manifest: markdown(self._card(manifest, trained, result, "" if run is None else run.id)),
                evaluation=result.evaluation.to_json(),
            )
            if run is not None:
                complete(run, version, result.metrics)
        action = "gate_passed" if result.passed else "gate_refused"
        self.registry.decide(self.system.name, action, version.id, at=at, by="gate", reason=result.reason, evidence=result.metrics)
        return version, result

    def _gate(self, trained: Trained) -> GateResult:
        holdout, dataset = trained.holdout, trained.dataset
        evaluation = evaluate_model(
            self.system,
            Candidate(trained.model, trained.baselines),
            Rows(holdout.columns, holdout.as_of),
            holdout.label,
            Truth(dataset.columns, dataset.label, dataset.label_known_at),
            others=self._champion(),
            split=held_out(self.system),
            latency=latency(trained.model, holdout),
        )
        return judge(evaluation, margin=self.system.rollout.margin if self.system.rollout is not None else 0.0)

    def _card(self, manifest: ModelManifest, trained: Trained, result: GateResult, run: str) -> Card:
        """What is known of a version as it is registered."""
        dataset = {**trained.dataset.manifest, "hash": trained.dataset.hash}
        return Card(
            system=self.system, version="", registered=None, manifest=manifest, dataset=dataset, evaluation=result.evaluation, run=run
        )

    def _champion(self) -> dict[str, TabularModel]:
        champion = self.registry.deployment(self.system.name).champion
        return {} if champion is None else {CHAMPION: load_model(self.system, self.registry, self.registry.version(champion))}
