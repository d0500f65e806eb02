"""The Kafka cluster that comes within librdkafka: real brokers on a real socket, in this process, without disks.

Its topics have four partitions unless made otherwise, which only the C interface does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka


class KafkaCluster:
    """Addresses of one broker, and topics in it."""

    def __init__(self, library: Any, cluster: int) -> None:
        self._library = library
        self._cluster = cluster
        self.servers = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()

    def make_topic(self, name: str, partitions: int = 1) -> str:
        """The address of a new topic as a log."""
        assert self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0
        return f"kafka://{self.servers}/{name}"


@contextmanager
def kafka_cluster() -> Iterator[KafkaCluster]:
    """A cluster that lives as long as its context."""
    library = _library()
    error = ctypes.create_string_buffer(500)
    settings = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(settings, b"log_level", b"2", error, 500)
    client = library.rd_kafka_new(0, settings, error, 500)
    assert client, error.value
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    yield KafkaCluster(library, cluster)
    library.rd_kafka_mock_cluster_destroy(cluster)
    library.rd_kafka_destroy(client)


def _library() -> Any:
    folder = Path(confluent_kafka.__file__).parent
    bundled = [*folder.parent.glob("confluent_kafka.libs/librdkafka*"), *folder.glob(".dylibs/librdkafka*")]
    library: Any = ctypes.CDLL(str(bundled[0]))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in [
        ("conf_new", pointer, []),
        ("conf_set", ctypes.c_int, [pointer, text, text, text, ctypes.c_size_t]),
        ("new", pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        ("mock_cluster_new", pointer, [pointer, ctypes.c_int]),
        ("mock_cluster_bootstraps", text, [pointer]),
        ("mock_topic_create", ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        ("mock_cluster_destroy", None, [pointer]),
        ("destroy", None, [pointer]),
    ]:
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library
