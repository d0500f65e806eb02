"""How long work tells where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives where a run is; the command line draws it, a test ignores it."""

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` in a stage, with a note on what is going on."""
        ...

    def say(self, text: str) -> None:
        """One line that stays: something happened."""
        ...


class Silent:
    """Progress that no one watches."""

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""
