from __future__ import annotations

import pytest

from mainspring.gateway.door.identity import identify

FRESH = "0123456789abcdef" * 2
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def found(**headers: str):
    return identify({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}, lambda: FRESH)


def test_what_brings_nothing_is_called_by_its_trace():
    identity = found()
    assert (identity.request_id, identity.trace_id, identity.parent) == (FRESH, FRESH, "")
    assert identity.traceparent == f"00-{FRESH}-{FRESH[:16]}-00"


def test_a_trace_goes_on():
    identity = found(traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=1, b@c=2", x_request_id="r1")
    assert (identity.request_id, identity.trace_id, identity.parent, identity.flags) == ("r1", TRACE, SPAN, "01")
    assert identity.state == "a=1, b@c=2"
    assert found(traceparent=f"01-{TRACE}-{SPAN}-03-later").trace_id == TRACE


@pytest.mark.parametrize(
    "parent",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}-{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_begins_a_trace(parent):
    assert found(traceparent=parent, tracestate="a=1").trace_id == FRESH
    assert found(traceparent=parent, tracestate="a=1").state == ""


@pytest.mark.parametrize("state", ["a", "A=1", "a=1,a=2", "a=" + "x" * 600, ",".join(f"k{n}=1" for n in range(33)), "a=\x7f", "a=b=c"])
def test_what_is_no_tracestate_is_not_passed_on(state):
    assert found(traceparent=f"00-{TRACE}-{SPAN}-00", tracestate=state).state == ""
