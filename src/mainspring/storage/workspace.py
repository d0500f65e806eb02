"""Where everything of one system lies: the three records, and what is derived from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mainspring.storage.stores import split_shards

_ONLINE_URL = "online.url"
_EVENTS_URL = "events.url"
_REGISTRY_URL = "registry.url"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths under one folder. ``events``, ``predictions`` and ``registry`` are the records; all else can be rebuilt."""

    path: Path

    @property
    def events(self) -> Path:
        """The event log."""
        return self.path / "events"

    @property
    def events_url(self) -> str:
        """The address of the event log: `events`, or what `keep_events_at` has kept."""
        kept = self.path / _EVENTS_URL
        return kept.read_text().strip() if kept.exists() else f"file:{self.events}"

    def keep_events_at(self, url: str) -> None:
        """Keep the event log at another address."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _EVENTS_URL).write_text(url)

    @property
    def predictions(self) -> Path:
        """The prediction log."""
        return self.path / "predictions"

    @property
    def registry(self) -> Path:
        """The registry of versions and decisions, with its artifacts."""
        return self.path / "registry"

    @property
    def registry_url(self) -> str:
        """The address of the registry: `registry`, or what `keep_registry_at` has kept."""
        kept = self.path / _REGISTRY_URL
        return kept.read_text().strip() if kept.exists() else f"file:{self.registry}"

    def keep_registry_at(self, url: str) -> None:
        """Keep the registry at another address."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _REGISTRY_URL).write_text(url)

    @property
    def has_registry(self) -> bool:
        """Whether a run has begun here."""
        return self.registry.is_dir() or (self.path / _REGISTRY_URL).exists()

    @property
    def quarantine(self) -> Path:
        """Rows that broke their source's contract."""
        return self.path / "quarantine"

    @property
    def dead_letters(self) -> Path:
        """Events that do not fit the declaration and were left out of the online store."""
        return self.path / "dead-letters"

    @property
    def tables(self) -> Path:
        """Offline tables, derived from the event log."""
        return self.path / "tables"

    @property
    def datasets(self) -> Path:
        """Training sets, derived from the tables."""
        return self.path / "datasets"

    @property
    def runs(self) -> Path:
        """Records of trainings and tuning trials."""
        return self.path / "runs"

    @property
    def searches(self) -> Path:
        """Searches over settings, each in a folder of its own."""
        return self.path / "searches"

    @property
    def online(self) -> Path:
        """The online store, derived from the event log."""
        return self.path / "online"

    @property
    def online_url(self) -> str:
        """The address of the online store: `online`, or what `keep_online_at` has kept."""
        kept = self.path / _ONLINE_URL
        return kept.read_text().strip() if kept.exists() else f"lmdb:{self.online}"

    def keep_online_at(self, url: str) -> None:
        """Keep the online store at another address, in a namespace of its own."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _ONLINE_URL).write_text(self.in_own_namespace(url))

    def in_own_namespace(self, url: str) -> str:
        """The address with a namespace (``#...``) if it is a server's and has none: the one kept for that server, or a new one."""
        if "#" in url or url.startswith("lmdb:"):
            return url
        kept, _, namespace = self.online_url.partition("#")
        same = namespace and split_shards(kept)[0] == split_shards(url)[0]
        return f"{url}#{namespace if same else f'{self.path.name}-{os.urandom(4).hex()}'}"

    @property
    def receipts(self) -> Path:
        """Receipts of what was erased, and of erasures that were begun."""
        return self.path / "receipts"

    @property
    def report(self) -> Path:
        """Reports of finished runs."""
        return self.path / "report"
