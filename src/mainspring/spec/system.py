"""The System: one declaration that everything else reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.measures import MEASURES, OF_TASK
from mainspring.schema import Type
from mainspring.spec.aggregate import Aggregate, View
from mainspring.spec.codec import decode, encode
from mainspring.spec.feature import Column, Feature, Function
from mainspring.spec.label import Baseline, GroupMedian, Label, LinearRule, RecentRatio
from mainspring.spec.model import Model
from mainspring.spec.operation import PREVIOUS, Monitor, Policy, Rollout
from mainspring.spec.requirements import Requirements
from mainspring.spec.source import LONGEST_NAME, Source
from mainspring.spec.versions import feature_versions

FORMAT = 1


@dataclass(frozen=True, slots=True)
class System:
    """A production machine-learning system, declared once.

    Every answer to ``question`` starts from a fact of ``request``; ``features`` are computed for it as of its event time,
    ``model`` learns ``label`` from them, ``policy`` turns scores into answers, ``monitors`` watch, ``rollout`` changes versions;
    ``owner`` answers for it.

    Raises:
        DeclarationError: a name is taken twice or unknown, a function's inputs form a circle, a baseline or fallback is
            not declared; the message says where and what was meant.
    """

    name: str
    question: str
    request: Source
    features: Sequence[Feature]
    label: Label
    model: Model
    requirements: Requirements = field(default_factory=Requirements)
    baselines: Sequence[Baseline] = ()
    policy: Policy = field(default_factory=Policy)
    monitors: Sequence[Monitor] = ()
    rollout: Rollout | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        for sequence in ("features", "baselines", "monitors"):
            object.__setattr__(self, sequence, tuple(getattr(self, sequence)))
        _Check(self).run()

    def __str__(self) -> str:
        lines = [
            f"System '{self.name}' {self.hash[:12]}: {self.question}",
            f"  request   {self.request.name}: {', '.join(self.request.schema.names)}",
        ]
        lines += [f"  source    {source.name} ({source.kind}): {', '.join(source.columns.names)}" for source in self.sources]
        lines += [f"  feature   {feature.name}: {feature.type}" for feature in self.features]
        lines.append(f"  label     {self.label.source.name}.{self.label.column}, matures after {self.label.matures_after}")
        lines.append(f"  model     {self.model}")
        lines += [f"  baseline  {baseline.name}" for baseline in self.baselines]
        lines.append(f"  fallback  model -> {' -> '.join(self.policy.fallback) or 'error'}")
        lines += [f"  monitor   {monitor.watch} per {monitor.window}" for monitor in self.monitors]
        if self.rollout is not None:
            lines.append(f"  rollout   shadow {self.rollout.shadow} -> {' -> '.join(f'{step:.0%}' for step in self.rollout.steps)}")
        lines += [f"  promises  {quality}" for quality in self.requirements.quality]
        return "\n".join(lines)

    @property
    def hash(self) -> str:
        """SHA-256 of the declaration, the code of its functions included: same declaration, same hash."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The declaration as canonical JSON; functions as ``module:name`` with a hash of their code."""
        return json.dumps({"format": FORMAT, **encode(self, self._all_sources())}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> System:
        """The System that `to_json` wrote.

        Raises:
            DeclarationError: the text is no such JSON, of another format, or a function is gone or has other code.
        """
        system: System = decode(text, FORMAT, cls)
        return system

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every source besides the request, in order of first use."""
        return tuple(source for source in self._all_sources() if source != self.request)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """The features that are folds over facts."""
        return tuple(feature for feature in self.features if isinstance(feature, Aggregate))

    @property
    def functions(self) -> tuple[Function, ...]:
        """The features that are functions, each after the functions it reads."""
        return tuple(_ordered([feature for feature in self.features if isinstance(feature, Function)], self.name))

    @property
    def views(self) -> dict[View, tuple[Aggregate, ...]]:
        """The views in order of first use, with the aggregates of each."""
        views: dict[View, list[Aggregate]] = {}
        for aggregate in self.aggregates:
            views.setdefault(aggregate.view, []).append(aggregate)
        return {view: tuple(aggregates) for view, aggregates in views.items()}

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """The features the model sees, in order: all but those it ignores and instants."""
        ignored = set(self.model.ignore)
        return tuple(feature for feature in self.features if feature.name not in ignored)

    @property
    def feature_hashes(self) -> dict[str, str]:
        """The version of each model input: a model loads only where these are the same."""
        versions = feature_versions(self.features, self.request)
        return {feature.name: versions[feature.name] for feature in self.inputs}

    def _all_sources(self) -> tuple[Source, ...]:
        used = [self.request, *(aggregate.view.source for aggregate in self.aggregates), self.label.source]
        return tuple(dict.fromkeys(used))


@dataclass(frozen=True, slots=True)
class _Check:
    """Validation of one System; the names it may use, and where a finding stands."""

    system: System

    def run(self) -> None:
        system = self.system
        if not system.name.isidentifier() or len(system.name.encode()) > LONGEST_NAME:
            raise self._error(f"name {system.name!r} must be letters, digits and underscores, at most {LONGEST_NAME} bytes.")
        self._unique([feature.name for feature in system.features], "feature")
        self._unique([baseline.name for baseline in system.baselines], "baseline")
        self._sources()
        for feature in system.features:
            self._feature(feature)
        list(_ordered([feature for feature in system.features if isinstance(feature, Function)], system.name))
        self._model()
        self._operation()

    @property
    def _known(self) -> set[str]:
        return {*self.system.request.columns.names, *(feature.name for feature in self.system.features)}

    def _sources(self) -> None:
        names: dict[str, Source] = {}
        for source in (self.system.request, *(aggregate.view.source for aggregate in self.system.aggregates), self.system.label.source):
            if names.setdefault(source.name, source) != source:
                raise self._error(f"two different sources are named '{source.name}'. Give each its own name.")
        views: dict[str, View] = {}
        for aggregate in self.system.aggregates:
            view = aggregate.view
            if views.setdefault(view.name, view) != view:
                raise self._error(
                    f"two different views are named '{view.name}'. Give one of them a name: {view.source.name}.per(..., name='...')."
                )

    def _feature(self, feature: Feature) -> None:
        columns = self.system.request.columns
        if isinstance(feature, Column):
            self._exists(feature.name, columns.names, "feature")
        elif isinstance(feature, Aggregate):
            for column, on in zip(feature.view.columns, feature.view.on, strict=True):
                place = f"feature '{feature.name}', on"
                self._exists(on, columns.names, place)
                if columns[on].type != feature.view.source.columns[column].type:
                    raise self._error(
                        f"{place}: request column '{on}' is {columns[on].type} but '{feature.view.source.name}.{column}' is "
                        f"{feature.view.source.columns[column].type}. Keys must have one type."
                    )
        else:
            if feature.name in columns:
                raise self._error(f"feature function '{feature.name}' has the name of a request column. Rename it.")
            for name in feature.inputs:
                self._exists(name, self._known - {feature.name}, f"feature function '{feature.name}', input")

    def _model(self) -> None:
        system, model = self.system, self.system.model
        if model.task not in ("regression", "binary"):
            raise self._error(f"model: a system answers with one number, the task {model.task} gives more. Use regression or binary.")
        features = [feature.name for feature in system.features]
        for name in (*model.ignore, *([model.offset] if model.offset else [])):
            self._exists(name, features, "model")
        types = {feature.name: feature.type for feature in system.features}
        for text in model.text:
            self._exists(text.column, features, "model, text")
            if types[text.column] != Type.STR:
                raise self._error(f"model, text: feature '{text.column}' is {types[text.column]}, free text is str. Leave it out there.")
        if model.group is not None:
            self._exists(model.group, system.request.schema.names, "model, group")
        for feature in system.inputs:
            if feature.type in (Type.INSTANT, Type.JSON):
                what = "an instant" if feature.type == Type.INSTANT else "a list or map"
                raise self._error(
                    f"feature '{feature.name}' is {what} and cannot be a model input. Name it in ignore= and read it in a function."
                )
        if system.label.on not in system.request.schema:
            raise self._error(f"label: request '{system.request.name}' has no column '{system.label.on}'.")
        for baseline in system.baselines:
            for name in baseline.inputs:
                self._exists(name, self._known, f"baseline '{baseline.name}'")
            if isinstance(baseline, RecentRatio):
                self._exists(
                    baseline.base.name,
                    [one.name for one in system.baselines if isinstance(one, GroupMedian)],
                    f"baseline '{baseline.name}'",
                )

    def _operation(self) -> None:
        system = self.system
        rules = [baseline.name for baseline in system.baselines if isinstance(baseline, LinearRule)]
        for name in system.policy.fallback:
            self._exists(name, [PREVIOUS, *rules], "policy, fallback")
        self._requirements()
        for monitor in system.monitors:
            for name in (*monitor.by, *monitor.features):
                self._exists(name, self._known, f"monitor '{monitor.watch}'")
        if system.rollout is not None:
            self._exists(system.rollout.unit, system.request.schema.names, "rollout, unit")

    def _requirements(self) -> None:
        needs, model = self.system.requirements, self.system.model
        for quality in needs.quality:
            place = f"requirement '{quality}'"
            if quality.measure.kind not in OF_TASK[model.task]:
                fitting = ", ".join(measure.name for measure in MEASURES.values() if measure.kind in OF_TASK[model.task])
                raise self._error(f"{place}: '{quality.metric}' does not fit answers of the task {model.task}. Use one of {fitting}.")
            if quality.measure.kind == "interval" and model.interval is None:
                raise self._error(f"{place}: the model gives no interval. Declare one: {type(model).__name__}(interval=(0.1, 0.9)).")
            if quality.of is not None:
                self._exists(quality.of, [baseline.name for baseline in self.system.baselines], place)
        if needs.costs is not None and model.task != "binary":
            raise self._error(f"requirements, costs: they are of alerts, so of two classes; the task is {model.task}.")

    def _unique(self, names: Sequence[str], kind: str) -> None:
        for name in names:
            if names.count(name) > 1:
                raise self._error(f"two {kind}s are named '{name}'. Give one of them a name of its own with name='...'.")

    def _exists(self, name: str, known: Sequence[str] | set[str], place: str) -> None:
        if name not in known:
            raise self._error(f"{place}: there is no '{name}'.{did_you_mean(name, known)}")

    def _error(self, message: str) -> DeclarationError:
        return DeclarationError(f"System '{self.system.name}', {message}")


def _ordered(functions: Sequence[Function], system: str) -> Iterator[Function]:
    waiting = {function.name: function for function in functions}
    while waiting:
        ready = [function for function in waiting.values() if not waiting.keys() & set(function.inputs)]
        if not ready:
            raise DeclarationError(f"System '{system}', features: {', '.join(sorted(waiting))} need each other in a circle. Break it.")
        for function in ready:
            del waiting[function.name]
        yield from ready
