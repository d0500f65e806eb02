"""Blobs in S3-compatible object storage, by obstore."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from mainspring.errors import MissingExtraError, StorageError
from mainspring.storage.blobs import checked, verified

_WAIT = timedelta(seconds=10)


class S3Blobs:
    """Blobs under ``prefix`` of a bucket that exists, each one object that is written whole or not at all.

    Access keys come from ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or from the machine's role. A request is given up
    after 10 s, and tried three times within 10 s.

    Args:
        bucket: the bucket's name.
        prefix: what every object's key begins with, without slashes at its ends; may be empty.
        endpoint: ``http://host:port`` of a server other than Amazon's, or empty.
        region: the bucket's region, or empty: ``AWS_REGION``, else us-east-1.

    Raises:
        MissingExtraError: the package ``obstore`` is not installed.
        StorageError: the address cannot be used.
    """

    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str = "", region: str = "") -> None:
        try:
            from obstore import exceptions, store
        except ImportError as error:
            raise MissingExtraError("Artifacts in object storage", "obstore", "s3") from error
        self._place = "s3://" + "/".join(part for part in (bucket, prefix) if part) + (f" at {endpoint}" if endpoint else "")
        self._errors = (exceptions.BaseError, OSError, ValueError)
        options: dict[str, Any] = {name: value for name, value in (("endpoint", endpoint), ("region", region)) if value}
        try:
            self._store = store.S3Store(
                bucket,
                prefix=prefix or None,
                client_options={"allow_http": endpoint.startswith("http:"), "timeout": _WAIT, "connect_timeout": _WAIT / 2},
                retry_config={"max_retries": 2, "retry_timeout": _WAIT},
                **options,
            )
        except self._errors as error:
            raise self._failed("be opened", error) from error

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its SHA-256 in hex; the same bytes again change nothing, altered ones are mended.

        Raises:
            StorageError: the store cannot be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        try:
            if not self._holds(digest, data):
                self._store.put(digest, data, use_multipart=False)
        except self._errors as error:
            raise self._failed(f"take {digest}", error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is ``digest``, verified on every read.

        Raises:
            StorageError: the blob is not there, cannot be read, or its bytes were altered.
        """
        checked(digest, self._place)
        try:
            data = bytes(self._store.get(digest).bytes())
        except self._errors as error:
            raise StorageError(f"Blob {digest} in {self._place} cannot be read ({_said(error)}). Restore it from a copy.") from error
        return verified(data, digest, f"{digest} in {self._place}")

    def has(self, digest: str) -> bool:
        """Whether there is an object of this name.

        Raises:
            StorageError: the store does not answer.
        """
        checked(digest, self._place)
        try:
            self._store.head(digest)
        except FileNotFoundError:
            return False
        except self._errors as error:
            raise self._failed("be read", error) from error
        return True

    def delete(self, digest: str) -> None:
        """Remove a blob; one that is not there changes nothing.

        Raises:
            StorageError: the store cannot be written.
        """
        checked(digest, self._place)
        try:
            self._store.delete(digest)
        except FileNotFoundError:
            return
        except self._errors as error:
            raise self._failed(f"remove {digest}", error) from error

    def _holds(self, digest: str, data: bytes) -> bool:
        try:
            return bytes(self._store.get(digest).bytes()) == data
        except FileNotFoundError:
            return False

    def _failed(self, what: str, error: Exception) -> StorageError:
        return StorageError(f"Blob store {self._place}: cannot {what} ({_said(error)}). Mend the address, the access keys or the bucket.")


def _said(error: Exception) -> str:
    return " ".join(str(error).partition("Debug source:")[0].split())
