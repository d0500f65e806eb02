"""One error tree. A message names the thing, the place and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MainspringError(Exception):
    """Base of every error that Mainspring raises on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class DeclarationError(MainspringError):
    """A declaration contradicts itself or names something that is not there."""

    exit_code = 2


class DataError(MainspringError):
    """Data from outside cannot be used as it is: a source file, a column, a batch of events."""

    exit_code = 3


class RequestError(MainspringError):
    """A request is refused; ``field`` is the path of the offending field, empty for the whole body."""

    exit_code = 3

    def __init__(self, field: str, message: str, status: int = 422) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.reason = message
        self.status = status


class StorageError(MainspringError):
    """A record or a store cannot be read or written: corrupt, locked, full, of another version."""

    exit_code = 4


class RegistryError(MainspringError):
    """A version is not there, was altered, or does not fit the system that asks for it."""

    exit_code = 5


class TrainingError(MainspringError):
    """A model cannot be trained: no labelled rows, too few rows to hold any back."""

    exit_code = 6


class ServingError(MainspringError):
    """No model and no rule could answer; the caller gets 503."""

    exit_code = 7


class ExportError(MainspringError):
    """A model has no other form, or the file does not answer as the model does."""

    exit_code = 10


class MissingExtraError(MainspringError):
    """A feature needs a package that is not installed; the message holds the exact ``pip install`` line."""

    exit_code = 8

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs the package '{package}'. Install it with: pip install 'mainspring[{extra}]'")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""
