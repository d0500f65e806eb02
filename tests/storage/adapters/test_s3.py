import sys

import pytest

from mainspring.errors import MissingExtraError, StorageError
from mainspring.storage.stores import open_blobs


def test_a_bucket_that_is_not_there_or_not_ours_is_a_storage_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"s3://no-bucket/x at .* cannot take .*NoSuchBucket"):
        open_blobs(f"s3://no-bucket/x?endpoint={s3}").put(b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"cannot take .*SignatureDoesNotMatch"):
        open_blobs(f"s3://tests?endpoint={s3}").put(b"x")
    with pytest.raises(StorageError, match="cannot be read"):
        open_blobs(f"s3://tests?endpoint={s3}").has("0" * 64)


def test_a_server_that_is_down_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="Mend the address"):
        open_blobs("s3://bucket?endpoint=http://127.0.0.1:1").has("0" * 64)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mainspring\[s3\]'"):
        open_blobs("s3://bucket")


@pytest.mark.parametrize(
    ("address", "said"), [("gs://bucket", "none of blobs"), ("s3://", "none of blobs"), ("s3://b?regoin=x", "Did you mean 'region'")]
)
def test_an_address_of_something_else_is_refused(address: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        open_blobs(address)
