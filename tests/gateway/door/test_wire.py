"""What counts as waited for bytes that nobody read while handlers ran."""

from __future__ import annotations

import asyncio

import pytest

from mainspring.gateway.door.admission import Admission
from mainspring.gateway.door.wire import Wire
from mainspring.gateway.settings import Limits, Overload, Seconds, Timeouts


def wire() -> Wire:
    return Wire(Timeouts(), Limits(), lambda _: None, lambda: None)


def test_all_that_is_read_in_one_turn_lay_for_half_of_what_the_handlers_took_and_what_comes_later_did_not() -> None:
    async def run() -> None:
        one = wire()
        one.handled(1.0, 1.04)
        assert [one.bytes_came(now) for now in (1.0402, 1.0407, 1.0419)] == pytest.approx([1.0202, 1.0207, 1.0219])
        await asyncio.sleep(0)
        assert one.bytes_came(1.0421) == 1.0421

    asyncio.run(run())


def test_a_loop_that_was_idle_let_nothing_lie() -> None:
    one = wire()
    one.handled(1.0, 1.04)
    assert one.bytes_came(1.05) == 1.05


def test_an_overload_ends_with_its_cause_though_all_that_came_since_was_refused() -> None:
    async def run() -> list[bool]:
        one, admission, admitted = wire(), Admission(Overload(target=Seconds(0.01), interval=Seconds(0.1))), []
        for number in range(40):
            now = number * 0.05
            if number < 10:
                one.handled(now - 0.05, now)
            admitted.append(admission.admit(now, now - one.bytes_came(now)) is None)
            await asyncio.sleep(0)
        return admitted

    admitted = asyncio.run(run())
    assert not all(admitted[:10])
    assert all(admitted[14:])
