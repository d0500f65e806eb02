import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import StorageError
from mainspring.storage.blobs import FolderBlobs


@given(data=st.binary(max_size=200))
def test_what_is_put_is_got_and_named_by_its_hash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    blobs = FolderBlobs(tmp_path_factory.getbasetemp() / "shared-blobs")
    digest = blobs.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert blobs.put(data) == digest
    assert blobs.get(digest) == data


def test_put_mends_an_altered_blob_and_replaces_the_draft_of_a_killed_writer(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    digest = blobs.put(b"a model")
    file = tmp_path / digest[:2] / digest
    file.write_bytes(b"a mod")
    file.with_name(digest + ".tmp").write_bytes(b"torn")
    blobs.put(b"a model")
    assert blobs.get(digest) == b"a model"
    assert [one.name for one in file.parent.iterdir()] == [digest]


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        FolderBlobs(tmp_path / "blobs").put(b"x")
