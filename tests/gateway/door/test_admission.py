from __future__ import annotations

import pytest

from mainspring.gateway.door.admission import Admission
from mainspring.gateway.settings import Overload, Seconds


@pytest.fixture
def admission():
    return Admission(Overload(target=Seconds(0.01), interval=Seconds(0.1)))


def test_a_burst_may_wait_an_interval(admission):
    assert admission.admit(0.0, 0.0) is None
    assert admission.admit(0.05, 0.09) is None
    assert admission.admit(0.06, 0.11).reason == "overload"
    assert not admission.standing


def stand(admission: Admission) -> float:
    now = 0.0
    while now < 0.25:
        admission.admit(now, 0.03)
        now += 0.01
    return now


def test_a_queue_that_never_empties_stands_until_nobody_waits(admission):
    now = stand(admission)
    assert admission.standing
    assert admission.admit(now, 0.02).status == 503
    assert admission.admit(now, 0.005) is None
    for _ in range(25):
        now += 0.01
        admission.admit(now, 0.002)
    assert not admission.standing
    assert admission.admit(now, 0.02) is None


def test_a_quiet_time_ends_it(admission):
    stand(admission)
    assert admission.admit(10.0, 0.02) is None
    assert not admission.standing


def test_the_least_important_are_refused_first(admission):
    now = stand(admission)
    assert admission.admit(now, 0.001, "sheddable") is not None
    assert admission.admit(now, 0.02, "default") is not None
    assert admission.admit(now, 0.02, "critical") is None


def test_a_deadline_that_cannot_be_met_is_refused(admission):
    assert admission.admit(1.0, 0.0, deadline=1.0).status == 504
    assert admission.admit(1.0, 0.0, deadline=1.05) is None
    assert admission.admit(1.0, 0.0, deadline=1.05, ahead=0.06).status == 504


def test_so_many_at_once():
    admission = Admission(Overload(in_flight=2))
    assert [admission.admit(0.0, 0.0) is None for _ in range(3)] == [True, True, False]
    admission.finished()
    assert admission.admit(0.0, 0.0) is None
