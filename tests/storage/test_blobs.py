import hashlib
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.storage.blobs import Blobs


@given(data=st.binary(max_size=200))
def test_what_is_put_is_got_and_named_by_its_hash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    blobs = Blobs(tmp_path_factory.getbasetemp() / "shared-blobs")
    digest = blobs.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert blobs.put(data) == digest
    assert blobs.get(digest) == data


def test_a_missing_altered_or_truncated_blob_is_refused_by_name(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = blobs.put(b"a model")
    file = tmp_path / "blobs" / digest[:2] / digest
    for data in (b"a mode", b"A model", b""):
        file.write_bytes(data)
        with pytest.raises(StorageError, match=f"{digest} was altered"):
            blobs.get(digest)
    file.unlink()
    with pytest.raises(StorageError, match=f"{digest} cannot be read"):
        blobs.get(digest)


def test_put_mends_an_altered_blob_and_replaces_the_draft_of_a_killed_writer(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"a model")
    file = tmp_path / digest[:2] / digest
    file.write_bytes(b"a mod")
    file.with_name(digest + ".tmp").write_bytes(b"torn")
    blobs.put(b"a model")
    assert blobs.get(digest) == b"a model"
    assert [one.name for one in file.parent.iterdir()] == [digest]


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_only_a_digest_is_looked_up(tmp_path: Path, digest: str) -> None:
    with pytest.raises(StorageError, match="not a SHA-256"):
        Blobs(tmp_path).get(digest)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        Blobs(tmp_path / "blobs").put(b"x")


def _put_many(path: Path) -> None:
    blobs = Blobs(path)
    for number in range(20):
        blobs.put(b"%d" % number * 1000)


def test_writers_of_the_same_blobs_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    for number in range(20):
        data = b"%d" % number * 1000
        assert Blobs(tmp_path).get(hashlib.sha256(data).hexdigest()) == data
    assert not list(tmp_path.rglob("*.tmp"))
