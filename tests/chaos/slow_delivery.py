"""The system of the tests with a feature that takes 20 ms a row where ``SLOW_FEATURE`` is set, so not while it is trained."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import mainspring as ms
from delivery import system

SLOW = "SLOW_FEATURE"


@ms.feature
def slow(km):  # type: ignore[no-untyped-def]
    if os.environ.get(SLOW):
        time.sleep(0.02 * len(km))
    return km * 1.0


POLICY = ms.Policy(deadline="250ms", floor=1.0)
refusing = replace(system, features=[*system.features, slow], policy=POLICY)
falling_back = replace(refusing, policy=replace(POLICY, fallback=["line"]))
