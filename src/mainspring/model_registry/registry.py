"""The registry: append-only rows of versions and decisions in a database, and the bytes of artifacts beside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainspring.clock import format_instant
from mainspring.errors import RegistryError, StorageError, did_you_mean
from mainspring.model_registry import retention
from mainspring.model_registry.addresses import open_backends
from mainspring.model_registry.compare import Difference, compare
from mainspring.model_registry.database import Execute
from mainspring.model_registry.deployment import GATE, MOVES, RELEASES, Decision, Deployment, check_release, fold, step
from mainspring.model_registry.records import KINDS, Version, decision_of, to_json, version_of
from mainspring.model_registry.signatures import Sign, Verify, check, message
from mainspring.models.large_tables import OpenTables

ALIAS = "alias"
LIVE = ("champion", "previous", "challenger")
SIGNING_KEY, PUBLIC_KEY = "MAINSPRING_SIGNING_KEY", "MAINSPRING_PUBLIC_KEY"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VERSION = "SELECT kind, name, number, at, manifest, artifacts, signature FROM versions"
_DECISION = 'SELECT seq, at, system, action, version, "by", reason, evidence FROM decisions'
_ADD_VERSION = """INSERT INTO versions (seq, kind, name, number, at, manifest, artifacts, signature)
    SELECT coalesce(max(seq), 0) + 1, ?, ?, ?, ?, ?, ?, ? FROM versions"""
_ADD_DECISION = 'INSERT INTO decisions (seq, at, system, action, version, "by", reason, evidence) VALUES (?, ?, ?, ?, ?, ?, ?, ?)'


class Registry:
    """Versions and decisions at an address: a folder, or ``postgresql://USER@HOST/DATABASE#ARTIFACTS`` (see `open_backends`).

    Any number of processes may open the same address to read and write, each with a `Registry` of its own made after a fork;
    one `Registry` may be shared by threads. Rows can be added but neither changed nor deleted: the database refuses it.
    With ``sign`` every version that is registered is signed; with ``verify`` a version is given out only with a signature that
    fits, and so are its artifacts (lists are not verified). ``tables`` opens the large tables of nets where shards hold them, for
    whoever loads a model to answer by; without it they are read from the artifacts.

    Raises:
        RegistryError: the address holds something else or cannot be used.
        StorageError: the address of the artifacts is none.
        MissingExtraError: the database's package is not installed.
    """

    def __init__(
        self, address: str | Path, *, sign: Sign | None = None, verify: Verify | None = None, tables: OpenTables | None = None
    ) -> None:
        self._rows, self._blobs = open_backends(address)
        self.tables = tables
        self._sign = sign
        self._verify = verify

    def register(
        self, kind: str, name: str, manifest: Mapping[str, Any], artifacts: Mapping[str, bytes] | None = None, *, at: int
    ) -> Version:
        """Add the next version of ``(kind, name)``, numbered from 1 without gaps, with the id ``kind:name:number``, and its artifacts.

        Raises:
            RegistryError: ``kind`` is not one of `KINDS`, the name holds other than letters, digits, ``_``, ``.`` and ``-``, the
                manifest is not JSON, or the record cannot be written.
        """
        if kind not in KINDS:
            raise RegistryError(f"Registry: kind '{kind}' is not known.{did_you_mean(kind, KINDS)}")
        if not _NAME.fullmatch(name):
            raise RegistryError(f"Registry: name {name!r} must be letters, digits, '_', '.' and '-'.")
        body = to_json(manifest, f"manifest of {kind} '{name}'")
        data = artifacts or {}
        try:
            hashes = {key: self._blobs.put(data[key]) for key in sorted(data)}
            with self._rows.writing() as execute:
                for key, digest in hashes.items():
                    if not self._blobs.has(digest):  # dropped meanwhile, as the artifact of another version
                        self._blobs.put(data[key])
                query = "SELECT coalesce(max(number), 0) + 1 FROM versions WHERE kind = ? AND name = ?"
                number = int(execute(query, (kind, name))[0][0])
                version = version_of((kind, name, number, at, body, json.dumps(hashes), ""))
                if self._sign is not None:
                    version = replace(version, signature=self._sign(message(version)).hex())
                execute(_ADD_VERSION, (kind, name, number, at, body, json.dumps(hashes), version.signature))
        except StorageError as error:
            raise RegistryError(f"Registry: artifacts of {kind} '{name}' cannot be stored. {error}") from error
        return version

    def version(self, id: str) -> Version:
        """The version with this id.

        Raises:
            RegistryError: there is none, or it is not signed as it must be.
        """
        kind, _, rest = id.partition(":")
        name, _, number = rest.rpartition(":")
        if number.isdecimal():
            rows = self._rows.read(f"{_VERSION} WHERE kind = ? AND name = ? AND number = ?", (kind, name, int(number)))
            if rows and f"{kind}:{name}:{rows[0][2]}" == id:
                return self._verified(version_of(rows[0]))
        newest = self._rows.read("SELECT kind, name, number FROM versions ORDER BY seq DESC LIMIT 200")
        known = [f"{row[0]}:{row[1]}:{row[2]}" for row in newest]
        raise RegistryError(f"Registry {self._rows.place}: there is no version '{id}'.{did_you_mean(id, known)}")

    def versions(self, kind: str, name: str) -> list[Version]:
        """All versions of ``(kind, name)`` by number, their signatures unread; none is no error."""
        return [version_of(row) for row in self._rows.read(f"{_VERSION} WHERE kind = ? AND name = ? ORDER BY number", (kind, name))]

    def names(self, kind: str) -> list[str]:
        """The names under which versions of a kind are registered, the one registered last at the end."""
        return [name for (name,) in self._rows.read("SELECT name FROM versions WHERE kind = ? GROUP BY name ORDER BY max(seq)", (kind,))]

    def resolve(self, name: str, which: str) -> Version:
        """The model that an id, a number, an alias of the system ``name``, or one of `LIVE` names.

        Raises:
            RegistryError: it names none.
        """
        if ":" in which:
            return self.version(which)
        if which.isdecimal():
            return self.version(f"model:{name}:{which}")
        deployment = self.deployment(name)
        known = {**self.aliases(name), **{role: id for role in LIVE if (id := getattr(deployment, role)) is not None}}
        if which not in known:
            raise RegistryError(f"System '{name}': nothing is called '{which}'.{did_you_mean(which, known)}")
        return self.version(known[which])

    def artifact(self, version: Version, name: str) -> bytes:
        """The bytes of an artifact, verified against the hash in the record.

        Raises:
            RegistryError: the version has no such artifact, its bytes are missing, altered, truncated, or were dropped by `prune`,
                or the version is not signed as it must be.
        """
        self._verified(version)
        if name not in version.artifacts:
            raise RegistryError(f"Version '{version.id}' has no artifact '{name}'.{did_you_mean(name, version.artifacts)}")
        try:
            return self._blobs.get(version.artifacts[name])
        except StorageError as error:
            self._check_kept(version.id, f"artifact '{name}'")
            raise RegistryError(f"Version '{version.id}', artifact '{name}': {error}") from error

    def verify(self, version: Version) -> list[str]:
        """What is wrong with a version: with its signature where a key is given, and with each of its artifacts; nothing is good."""
        problems = []
        try:
            self._verified(version)
        except RegistryError as error:
            return [str(error)]
        for name in version.artifacts:
            try:
                self.artifact(version, name)
            except RegistryError as error:
                problems.append(str(error))
        return problems

    def difference(self, first: Version, second: Version) -> Difference:
        """What differs between two models, with the data sets that they name."""
        named = [one.manifest.get("dataset") for one in (first, second)]
        datasets = [self.version(dataset).manifest if dataset else {} for dataset in named]
        return compare(first, second, datasets[0], datasets[1])

    def decide(
        self, system: str, action: str, version: str = "", *, at: int, by: str, reason: str, evidence: Mapping[str, Any] | None = None
    ) -> Decision:
        """Record a decision; one of `MOVES` also moves the deployment.

        A version that the gate refused is released only if ``evidence['despite']`` says why (see `check_release`).

        Raises:
            RegistryError: the version is unknown or its artifacts were dropped, the move is impossible from the present deployment
                or against the gate's word (checked in the transaction, so of two rivals one is refused), the evidence is not JSON,
                or the record cannot be written.
        """
        body = to_json(evidence or {}, f"evidence of '{action}' for system '{system}'")
        with self._rows.writing() as execute:
            return self._decide(execute, (at, system, action, version, by, reason, body))

    def alias(self, system: str, alias: str, version: str, *, at: int, by: str, reason: str) -> Decision:
        """Let a name stand for a model of the system from now on, or, with ``version`` empty, for none.

        Raises:
            RegistryError: the alias is no name, a number or one of `LIVE`, or the version is none of the system's models.
        """
        if not _NAME.fullmatch(alias) or alias.isdecimal() or alias in LIVE:
            raise RegistryError(
                f"System '{system}': alias {alias!r} must be letters, digits, '_', '.' and '-', no number, and none of {LIVE}."
            )
        if version and (self.version(version).kind, self.version(version).name) != ("model", system):
            raise RegistryError(f"System '{system}': '{version}' is none of its models, so no alias can stand for it.")
        return self.decide(system, ALIAS, version, at=at, by=by, reason=reason, evidence={"alias": alias})

    def aliases(self, system: str, at: int | None = None) -> dict[str, str]:
        """Which model each alias stands for, or stood for at the instant ``at``."""
        found: dict[str, str] = {}
        for decision in self._decided(system, (ALIAS,)):
            if at is None or decision.at <= at:
                found[decision.evidence["alias"]] = decision.version
        return {alias: version for alias, version in found.items() if version}

    def decisions(self, system: str, since: int = 0) -> list[Decision]:
        """The decisions about a system whose ``seq`` is above ``since``, in order."""
        return [decision_of(row) for row in self._rows.read(f"{_DECISION} WHERE system = ? AND seq > ? ORDER BY seq", (system, since))]

    def deployment(self, system: str, at: int | None = None) -> Deployment:
        """What is live, or what was live at the instant ``at``; a system without decisions is ``empty``."""
        return fold(self._decided(system, MOVES), at)

    def history(self, name: str) -> list[Version | Decision]:
        """All that was registered under a name and decided about it, by instant."""
        registered: list[Version | Decision] = [version for kind in KINDS for version in self.versions(kind, name)]
        return sorted([*registered, *self.decisions(name)], key=lambda one: one.at)

    def prunable(self, system: str, keep: int) -> list[Version]:
        """Models with artifacts that are neither live nor aliased nor among the newest ``keep``."""
        used = {*self.aliases(system).values(), *(getattr(self.deployment(system), role) for role in LIVE)}
        return retention.droppable(self.versions("model", system), used | self.pruned(system), keep)

    def pruned(self, system: str) -> set[str]:
        """The models whose artifacts were dropped."""
        return {decision.version for decision in self._decided(system, (retention.PRUNE,))}

    def prune(self, system: str, keep: int, *, at: int, by: str, reason: str) -> list[Version]:
        """Drop the artifacts of what is `prunable`, never records: first that is decided, then bytes that no other version has go.

        Killed in between, it goes on when it is asked again.

        Raises:
            RegistryError: ``keep`` is below 1, or the record or the artifacts cannot be written.
        """
        if keep < 1:
            raise RegistryError(f"System '{system}': {keep} versions cannot be kept. Keep 1 or more.")
        with self._rows.writing() as execute:
            chosen = self.prunable(system, keep)
            for version in chosen:
                body = to_json({"artifacts": version.artifacts}, "evidence")
                self._decide(execute, (at, system, retention.PRUNE, version.id, by, reason, body))
        try:
            with self._rows.writing():
                every = [version_of(row) for row in self._rows.read(_VERSION)]
                gone = {id for (id,) in self._rows.read("SELECT version FROM decisions WHERE action = ?", (retention.PRUNE,))}
                for digest in retention.orphans(every, gone):
                    self._blobs.delete(digest)
        except StorageError as error:
            raise RegistryError(f"System '{system}': artifacts cannot be dropped; prune again. {error}") from error
        return chosen

    def token(self) -> int:
        """A number that changes when this or another process has written, at most 0.1 s later; cheap enough to ask at every request."""
        return self._rows.token()

    def close(self) -> None:
        """Let go of the database."""
        self._rows.close()

    def _decided(self, system: str, actions: tuple[str, ...]) -> list[Decision]:
        marks = ", ".join("?" * len(actions))
        query = f"{_DECISION} WHERE system = ? AND action IN ({marks}) ORDER BY seq"
        return [decision_of(row) for row in self._rows.read(query, (system, *actions))]

    def _decide(self, execute: Execute, row: tuple[Any, ...]) -> Decision:
        seq = int(execute("SELECT coalesce(max(seq), 0) + 1 FROM decisions")[0][0])
        decision = decision_of((seq, *row))
        to = decision.evidence.get("to", "") if decision.action == "roll_back" else ""
        if decision.version and self.version(decision.version).kind != "model" and decision.action in MOVES:
            raise RegistryError(f"System '{decision.system}': {decision.action} needs a model, and '{decision.version}' is none.")
        if decision.action in (*RELEASES, ALIAS) and decision.version:
            self._check_kept(decision.version, decision.action)
        if to:
            self._check_once_champion(decision.system, to)
            self._check_kept(to, decision.action)
        step(self.deployment(decision.system), decision)
        check_release(self._decided(decision.system, (*GATE, *MOVES)), decision)
        execute(_ADD_DECISION, (seq, *row))
        return decision

    def _check_once_champion(self, system: str, version: str) -> None:
        past = [one.version for one in self._decided(system, ("promote",))]
        if version not in past:
            raise RegistryError(f"System '{system}': '{version}' never was the champion.{did_you_mean(version, past)}")

    def _check_kept(self, id: str, what: str) -> None:
        for one in self._rows.read(f"{_DECISION} WHERE action = ? AND version = ? ORDER BY seq", (retention.PRUNE, id)):
            dropped = decision_of(one)
            raise RegistryError(
                f"Version '{id}', {what}: its artifacts were dropped on {format_instant(dropped.at)} by {dropped.by} ({dropped.reason}). "
                "The record stays; train again from its data set."
            )

    def _verified(self, version: Version) -> Version:
        if self._verify is not None:
            check(version, self._verify)
        return version


def signing_key(environment: Mapping[str, str] = os.environ) -> Sign | None:
    """What signs with the key in the PEM file that ``MAINSPRING_SIGNING_KEY`` names, None where it names none; errors as below."""
    private = environment.get(SIGNING_KEY)
    if not private:
        return None
    from mainspring.model_registry.adapters import ed25519

    return ed25519.signer(Path(private))


def open_registry(address: str | Path, environment: Mapping[str, str] = os.environ, *, tables: OpenTables | None = None) -> Registry:
    """The registry at an address, with the keys in the PEM files that ``MAINSPRING_SIGNING_KEY`` and ``MAINSPRING_PUBLIC_KEY`` name.

    ``tables`` as in `Registry`.

    Raises:
        RegistryError: a key cannot be read, or the registry cannot be opened.
        StorageError: the address of the artifacts is none.
        MissingExtraError: a package for the address or the keys is not installed.
    """
    private, public = environment.get(SIGNING_KEY), environment.get(PUBLIC_KEY)
    if not private and not public:
        return Registry(address, tables=tables)
    from mainspring.model_registry.adapters import ed25519

    verify = ed25519.verifier(Path(public)) if public else None
    return Registry(address, sign=signing_key(environment), verify=verify, tables=tables)
