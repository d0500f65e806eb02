from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from registries import alter_file
from s3_server import BUCKET, alter

from mainspring.errors import StorageError
from mainspring.storage.stores import open_blobs

Alter = Callable[[str, bytes | None], None]
NONE = hashlib.sha256(b"nothing").hexdigest()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Alter]:
    """The address of a new store of blobs, and what writes other bytes under the name of one."""
    if request.param == "folder":
        return f"file:{tmp_path}", partial(alter_file, tmp_path)
    endpoint, prefix = request.getfixturevalue("s3"), f"b{abs(hash(str(tmp_path)))}"
    address = f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&region=us-east-1"
    return address, lambda digest, data: alter(endpoint, f"{prefix}/{digest}", data)


@pytest.mark.parametrize("data", [b"", b"a model", bytes(range(256)) * 20_000], ids=len)
def test_what_is_put_is_got_and_named_by_its_hash(place: tuple[str, Alter], data: bytes) -> None:
    blobs = open_blobs(place[0])
    digest = blobs.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert blobs.put(data) == digest
    assert open_blobs(place[0]).get(digest) == data
    assert blobs.has(digest)


def test_a_missing_altered_or_truncated_blob_is_refused_by_name_and_mended_by_the_next_put(place: tuple[str, Alter]) -> None:
    blobs = open_blobs(place[0])
    digest = blobs.put(b"a model")
    for data in (b"a mode", b"A model", b""):
        place[1](digest, data)
        with pytest.raises(StorageError, match=f"{digest}.* was altered"):
            blobs.get(digest)
    blobs.put(b"a model")
    assert blobs.get(digest) == b"a model"
    with pytest.raises(StorageError, match=f"{NONE}.* cannot be read"):
        blobs.get(NONE)
    assert not blobs.has(NONE)


def test_what_is_deleted_is_gone_and_can_be_put_again(place: tuple[str, Alter]) -> None:
    blobs = open_blobs(place[0])
    digest, other = blobs.put(b"one"), blobs.put(b"other")
    blobs.delete(digest)
    blobs.delete(digest)
    assert (blobs.has(digest), blobs.has(other)) == (False, True)
    with pytest.raises(StorageError, match="cannot be read"):
        blobs.get(digest)
    assert blobs.put(b"one") == digest
    assert blobs.get(digest) == b"one"


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_only_a_digest_is_looked_up(place: tuple[str, Alter], digest: str) -> None:
    blobs = open_blobs(place[0])
    for act in (blobs.get, blobs.has, blobs.delete):
        with pytest.raises(StorageError, match="not a SHA-256"):
            act(digest)


def _put_many(address: str) -> None:
    blobs = open_blobs(address)
    for number in range(20):
        blobs.put(b"%d" % number * 1000)


def test_writers_of_the_same_blobs_do_not_disturb_each_other(place: tuple[str, Alter]) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(place[0],)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    blobs = open_blobs(place[0])
    for number in range(20):
        data = b"%d" % number * 1000
        assert blobs.get(hashlib.sha256(data).hexdigest()) == data
