from __future__ import annotations

import socket
import threading

import pytest

from mainspring.errors import DataError, ServingError
from mainspring.loop.connection import post
from mainspring.loop.load import schedule
from mainspring.loop.load.drive import Settings, Target, drive, drive_closed

QUICK = Settings(warm_up=0.2, connections=8, timeout=0.5)


def bodies(target: Target, *texts: str) -> list[bytes]:
    return [post(f"{target.host}:{target.port}", target.path, text.encode()) for text in texts]


def test_an_open_loop_sends_what_was_due_and_leaves_the_warm_up_out(url):
    target = Target.of(url)
    load = drive(target, bodies(target, "{}"), schedule.constant(200, 1.2), QUICK)
    assert (load.mode, load.answered, load.failures) == ("open", 200, {})
    assert load.latency.count == load.lag.count == 200
    assert sum(moment.answered for moment in load.moments) == 200
    assert 0 < load.percentile(0.5) <= load.percentile(0.99)


def test_a_stalled_server_is_charged_for_the_requests_that_were_due_while_it_stalled(url):
    target = Target.of(url)
    requests = bodies(target, '{"block": 0.4}', *["{}"] * 199)
    load = drive(target, requests, schedule.constant(100, 1), Settings(warm_up=0, connections=64, timeout=5))
    slow = sum(load.latency.quantiles(q / 100) > 0.05 for q in range(1, 101))
    assert 25 <= slow <= 60


def test_failures_are_counted_by_kind_and_are_no_answers(url):
    target = Target.of(url)
    load = drive(target, bodies(target, "{}", '{"status": 503}', '{"sleep": 3}'), schedule.constant(60, 0.7), QUICK)
    assert load.failures["503"] == pytest.approx(10, abs=1)
    assert load.failures["timeout"] == pytest.approx(10, abs=1)
    assert load.answered == pytest.approx(10, abs=1)
    assert load.percentile(1.0) >= 0.5
    assert load.latency.count == load.answered + load.failures["timeout"]


@pytest.mark.parametrize("text", ['{"close": true}', '{"pieces": true}'])
def test_every_form_of_answer_is_read(url, text):
    target = Target.of(url)
    load = drive(target, bodies(target, text), schedule.constant(100, 0.6), QUICK)
    assert (load.answered, load.failures) == (40, {})


def test_the_pool_grows_only_as_needed(url):
    target = Target.of(url)
    assert drive(target, bodies(target, '{"sleep": 0.1}'), schedule.constant(20, 0.8), QUICK).connections <= 4
    assert drive(target, bodies(target, '{"sleep": 0.1}'), schedule.constant(200, 0.8), QUICK).connections == 8


def test_a_closed_loop_says_so_and_has_no_rate_of_its_own(url):
    target = Target.of(url)
    load = drive_closed(target, bodies(target, '{"sleep": 0.01}'), 0.5, QUICK)
    assert (load.mode, load.connections, load.asked_rate, load.behind) == ("closed", 8, None, None)
    assert 100 < load.answered <= 400


def test_a_server_that_hangs_up_is_counted():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(1):
                connection, _ = listener.accept()
                connection.recv(10_000)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        target = Target.of(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        load = drive(target, bodies(target, "{}"), schedule.constant(20, 0.2), Settings(warm_up=0, connections=1, timeout=0.3))
        thread.join()
    assert load.failures["connection lost"] == 1
    assert load.answered == 0
    assert sum(load.failures.values()) == 4


def test_nothing_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServingError, match=f"Nothing answers at http://127.0.0.1:{port}"):
        drive(Target.of(f"http://127.0.0.1:{port}/"), [b""], schedule.constant(1, 1), QUICK)


@pytest.mark.parametrize("url", ["ftp://a/b", "127.0.0.1:8000", "http://", "http://a:99999/"])
def test_an_address_of_another_form_is_refused(url):
    with pytest.raises(DataError, match="Address"):
        Target.of(url)
