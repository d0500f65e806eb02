"""Content-addressed bytes: the name of a blob is the SHA-256 of its bytes, so it can be verified and never changes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Protocol

from mainspring.errors import StorageError
from mainspring.storage.durable import locked, make_directory, replacing, sync_directory

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs(Protocol):
    """A store of immutable blobs, safe for many writers. Every method raises `StorageError` when the store fails."""

    def put(self, data: bytes) -> str:
        """Keep ``data`` durably and return its SHA-256 in hex; the same bytes again change nothing, altered ones are mended."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is ``digest``, verified on every read; `StorageError` where they are gone or altered."""
        ...

    def has(self, digest: str) -> bool:
        """Whether there is a blob of this name; its bytes are not looked at."""
        ...

    def delete(self, digest: str) -> None:
        """Remove a blob; one that is not there changes nothing."""
        ...


def verified(data: bytes, digest: str, place: str) -> bytes:
    """``data``, if it is what ``digest`` names.

    Raises:
        StorageError: it is not.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(f"Blob {place} was altered: its {len(data)} bytes are not those stored. Restore it from a copy.")
    return data


def checked(digest: str, place: str) -> str:
    """``digest``, if it is one.

    Raises:
        StorageError: it is not 64 digits of lower-case hex.
    """
    if not _DIGEST.fullmatch(digest):
        raise StorageError(f"Blob store {place}: {digest!r} is not a SHA-256 in lower-case hex.")
    return digest


class FolderBlobs:
    """Blobs in a folder; a killed ``put`` leaves at most one draft, which the next replaces."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    def put(self, data: bytes) -> str:
        """Keep ``data`` durably and return its SHA-256 in hex; the same bytes again change nothing, altered ones are mended.

        Raises:
            StorageError: the folder cannot be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        target = self._file(digest)
        try:
            if target.is_file() and target.read_bytes() == data:
                return digest
            make_directory(target.parent)
            with locked(self._path / "lock"), replacing(target) as file:
                file.write(data)
        except OSError as error:
            raise StorageError(f"Blob store {self._path}: cannot write {target.name} ({error}). Free space or mend the folder.") from error
        return digest

    def has(self, digest: str) -> bool:
        """Whether a blob of this SHA-256 is there, altered or not."""
        return self._file(digest).is_file()

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is ``digest``, verified on every read.

        Raises:
            StorageError: the blob is not there, cannot be read, or its bytes were altered.
        """
        target = self._file(digest)
        try:
            data = target.read_bytes()
        except OSError as error:
            raise StorageError(f"Blob {target} cannot be read ({error.strerror}). Restore it from a copy of {self._path}.") from error
        return verified(data, digest, str(target))

    def delete(self, digest: str) -> None:
        """Remove a blob durably; one that is not there changes nothing.

        Raises:
            StorageError: the folder cannot be written.
        """
        target = self._file(digest)
        try:
            if target.is_file():
                target.unlink(missing_ok=True)
                sync_directory(target.parent)
        except OSError as error:
            raise StorageError(f"Blob store {self._path}: cannot remove {target.name} ({error}). Mend the folder's rights.") from error

    def _file(self, digest: str) -> Path:
        return self._path / checked(digest, str(self._path))[:2] / digest
