from __future__ import annotations

import os
from contextlib import closing

import pyarrow as pa
import pytest
from kafka_cluster import KafkaCluster

from mainspring.errors import StorageError
from mainspring.storage.adapters.kafka import KafkaLog
from mainspring.storage.stores import open_log


def test_a_topic_with_several_partitions_is_refused_and_why(kafka: KafkaCluster) -> None:
    with pytest.raises(
        StorageError, match=r"/several: the topic has 3 partitions. .* only within one.* use a topic with a single partition"
    ):
        open_log(kafka.make_topic("several", partitions=3))


def test_a_row_larger_than_a_message_is_refused_and_the_log_goes_on(kafka: KafkaCluster) -> None:
    with closing(open_log(kafka.make_topic("large"))) as log:
        with pytest.raises(StorageError, match="1 events of 'a' were not appended"):
            log.append("a", pa.record_batch({"text": [os.urandom(1_000_000).hex()]}))
        assert log.append("a", pa.record_batch({"text": ["small"]})) == 0
        assert [frame.batch["text"][0].as_py() for frame in log.read()] == ["small"]


def test_settings_of_the_client_stand_in_the_address(kafka: KafkaCluster) -> None:
    with closing(open_log(kafka.make_topic("settings") + "?client.id=me&socket.timeout.ms=5000")) as log:
        assert isinstance(log, KafkaLog)
        assert log._settings["client.id"] == "me"
        assert "client.id" not in log.place


@pytest.mark.long
def test_servers_that_are_not_there_are_named_with_the_mend() -> None:
    with pytest.raises(StorageError, match=r"kafka://127\.0\.0\.1:1/events: .*Start the servers"):
        open_log("kafka://127.0.0.1:1/events")


@pytest.mark.parametrize("url", ["kafka://host:9092", "kafka://host:9092/", "redis://host/0", "http://host/topic"])
def test_an_address_that_is_none_of_a_log_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match=r"Use a folder, redis://HOST:PORT/DATABASE#STREAM or kafka://HOST:PORT/TOPIC"):
        open_log(url)
