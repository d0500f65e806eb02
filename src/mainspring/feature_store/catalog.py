"""The catalog: what every feature of a System is, where it comes from, who owns it and who uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.spec import Aggregate, Column, Feature, Function, System
from mainspring.spec.versions import feature_versions, origins


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature. ``origins`` are source columns, ``inputs`` what it reads itself, ``used_by`` features, model, rules and monitors."""

    name: str
    kind: str
    type: str
    version: str
    description: str
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    inputs: tuple[str, ...]
    origins: tuple[str, ...]
    used_by: tuple[str, ...]


def catalog(system: System) -> dict[str, Entry]:
    """Every feature of a System by name, in its order."""
    versions = feature_versions(system.features, system.request)
    sources = {source.name: source for source in (system.request, *system.sources)}
    entries = {}
    for feature in system.features:
        columns = origins(feature, system.features, system.request)
        touched = [sources[name] for name in dict.fromkeys(column.split(".")[0] for column in columns)]
        entries[feature.name] = Entry(
            feature.name,
            type(feature).__name__.lower(),
            str(feature.type),
            versions[feature.name],
            _description(feature),
            tuple(dict.fromkeys(source.owner for source in touched if source.owner)),
            tuple(dict.fromkeys(tag for source in touched for tag in source.tags)),
            _inputs(feature),
            columns,
            _users(system, feature.name),
        )
    return entries


def find(system: System, name: str) -> Entry:
    """One feature's entry.

    Raises:
        DeclarationError: the System has no such feature.
    """
    entries = catalog(system)
    if name not in entries:
        raise DeclarationError(f"System '{system.name}' has no feature '{name}'.{did_you_mean(name, list(entries))}")
    return entries[name]


def search(system: System, text: str) -> list[Entry]:
    """The features whose name, description, owner, tags or source columns hold every word of ``text``, whatever the case."""
    words = text.lower().split()
    return [entry for entry in catalog(system).values() if all(word in _text(entry) for word in words)]


def breaks(system: System, trained: Mapping[str, str]) -> dict[str, str]:
    """Why a model that was ``trained`` on features of these versions does not fit the System now: feature to what became of it."""
    now = system.feature_hashes
    gone = {name: "is gone" for name in trained if name not in now}
    return {**gone, **{name: "is new" if name not in trained else "has changed" for name in now if trained.get(name) != now[name]}}


def _description(feature: Feature) -> str:
    if isinstance(feature, Column):
        return "Column of the request"
    if isinstance(feature, Function):
        return ((feature.function.__doc__ or "").strip().splitlines() or [""])[0]
    if feature.description:
        return feature.description
    what = f"{feature.function} of {feature.column}" if feature.column else feature.function
    where, by = (f", {word} {column}" if column else "" for word, column in (("where", feature.where), ("by", feature.by)))
    over = f"over {feature.window}" if feature.window else "of the newest fact" if feature.is_newest else "over all time"
    return f"{what} {over} per {', '.join(feature.view.columns) or 'everything'}{where}{by}"


def _inputs(feature: Feature) -> tuple[str, ...]:
    if isinstance(feature, Function):
        return feature.inputs
    if isinstance(feature, Aggregate):
        return tuple(f"{feature.view.source.name}.{name}" for name in dict.fromkeys((*feature.view.columns, *feature.columns)))
    return ()


def _users(system: System, name: str) -> tuple[str, ...]:
    users = [f"feature {one.name}" for one in system.functions if name in one.inputs]
    users += [f"model of {system.name}"] if any(one.name == name for one in system.inputs) else []
    users += [f"baseline {one.name}" for one in system.baselines if name in one.inputs]
    return (*users, *(f"monitor {one.watch}" for one in system.monitors if name in (*one.by, *one.features)))


def _text(entry: Entry) -> str:
    return " ".join((entry.name, entry.description, *entry.owners, *entry.tags, *entry.origins)).lower()
