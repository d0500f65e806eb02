"""Which database and which artifacts an address of a registry names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from mainspring.errors import RegistryError
from mainspring.model_registry.database import Database
from mainspring.storage.blobs import Blobs
from mainspring.storage.stores import open_blobs

_POSTGRES = ("postgresql", "postgres")
_PASSWORD = re.compile(r"(?<=//)([^:/@]*):[^@/]*(?=@)|(password=)[^&]*")


def open_backends(address: str | Path) -> tuple[Database, Blobs]:
    """The rows and the artifacts of ``FOLDER``, ``FOLDER#ARTIFACTS`` or ``postgresql://USER@HOST/DATABASE#ARTIFACTS``.

    ``ARTIFACTS`` is an address of `open_blobs`; a folder has them in ``blobs/`` where nothing else is said.

    Raises:
        RegistryError: another scheme, no address of artifacts beside a server, or what is there cannot be used.
        StorageError: the address of the artifacts is none.
        MissingExtraError: the database's package is not installed.
    """
    if isinstance(address, Path):
        return _in_folder(address, "")
    rows, _, artifacts = address.partition("#")
    scheme = urlsplit(rows).scheme
    if scheme in ("", "file"):
        return _in_folder(Path(rows.removeprefix("file:")), artifacts)
    place = _PASSWORD.sub(lambda found: f"{found[1]}:***" if found[1] is not None else "password=***", rows)
    if scheme not in _POSTGRES:
        raise RegistryError(
            f"Registry {place}: the address is none of a registry. Use a folder or postgresql://USER@HOST/DATABASE#ARTIFACTS."
        )
    if not artifacts:
        raise RegistryError(f"Registry {place}: where are the artifacts? Put #FOLDER or #s3://BUCKET/PREFIX after the address.")
    from mainspring.model_registry.adapters.postgres import PostgresDatabase

    return PostgresDatabase(rows, place), open_blobs(artifacts)


def artifacts_of(address: str) -> str:
    """The address of the artifacts alone."""
    rows, _, artifacts = address.partition("#")
    return artifacts or _beside(Path(rows.removeprefix("file:")))


def _beside(folder: Path) -> str:
    return str(folder / "blobs")


def _in_folder(folder: Path, artifacts: str) -> tuple[Database, Blobs]:
    from mainspring.model_registry.adapters.sqlite import SqliteDatabase

    return SqliteDatabase(folder), open_blobs(artifacts or _beside(folder))
