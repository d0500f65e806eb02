"""New facts of one key put into its rows: behind all others, among the recent ones, or by way of a `State`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mainspring.feature_engineering.facts import EventIds, State, ViewPlan
from mainspring.feature_store.packing import LATE, NO_OLDER, TIME, Older, Packed, Row, RowFormat, may_hold


class Added(NamedTuple):
    """New facts of one key in order of time, packed: ``records`` joined, ``texts`` joined per fact.

    ``ordered`` says that all are of different instants and ids, ``late`` that one was known after it happened, ``known`` when
    the last became known.
    """

    times: list[int]
    records: bytes
    ids: list[bytes]
    texts: list[bytes]
    ordered: bool
    late: bool
    known: int


class Appender:
    """Puts facts into rows of a view."""

    def __init__(self, plan: ViewPlan, form: RowFormat) -> None:
        self._plan, self._form = plan, form

    def insert(self, recent: bytes | None, added: Added, load: Callable[[], bytes]) -> Row:
        """The rows with more facts.

        ``load`` reads the second row, where there is one. It comes back as None where it is as it was.

        Raises:
            StorageError: a row is damaged, or has another format.
        """
        row = self._append(recent, added, load) if added.ordered else None
        if row is None and recent is not None:
            row = self._among_recent(recent, added)
        if row is None:
            state = self._plan.empty() if recent is None else self._form.unpack(Row(recent, load()))
            row = self._form.pack(self._plan.insert(state, self._state(added)))
        return row

    def _append(self, recent: bytes | None, added: Added, load: Callable[[], bytes]) -> Row | None:
        """The rows with facts behind all others; None where they are not, or where others are to be folded."""
        form, moments, flags, base, records, ids, texts = self._form, added.times, LATE * added.late, self._form.no_base, b"", b"", b""
        settled, prints, older = max(moments[-1] + (not self._plan.inclusive), added.known), b"", NO_OLDER
        if recent is not None:
            parts = form.parts(recent)
            flags, ids, older = flags | parts.flags, recent[parts.ids : parts.texts], parts.older
            settled, prints = max(settled, parts.settled), recent[parts.prints : parts.ids]
            records = form.facts(recent, b"", parts)
            last = TIME.unpack_from(records, len(records) - form.stride)[0]
            if moments[0] <= last or any(one in ids for one in added.ids) or may_hold(prints, added.ids):
                return None
            base, texts = recent[parts.base : parts.prints], b"".join(form.texts(recent, parts))
        each = (b"".join((texts, *added.texts[:-1])), added.texts[-1])
        facts = Packed(flags, settled, records + added.records, base, b"".join((ids, *added.ids)), each)
        full = len(facts.records) > form.stride * max(self._most(older), 4 * len(moments))
        second = load() if full and prints else b""
        if (full or not prints) and moments[-1] - self._quarter(facts.records, second, older) > self._plan.retention:
            return None
        return form.divided(facts, prints, second) if full else Row(form.row(facts, prints), None)

    def _quarter(self, records: bytes, second: bytes, older: Older) -> int:
        """The event time of the first fact that is not among the oldest quarter."""
        place = (older.facts + len(records) // self._form.stride) // 4
        held, place = (second, place) if place < older.facts else (records, place - older.facts)
        time: int = TIME.unpack_from(held, place * self._form.stride)[0]
        return time

    def _among_recent(self, recent: bytes, added: Added) -> Row | None:
        """The rows with facts that concern the first of two alone; None where they may concern the second, or fold it."""
        form, parts = self._form, self._form.parts(recent)
        prints, older = recent[parts.prints : parts.ids], parts.older
        if not prints or added.times[0] <= older.last or may_hold(prints, added.ids):
            return None
        state = form.state_of(recent, b"", parts._replace(older=NO_OLDER), self._plan.empty().base)
        if max(added.times[-1], int(state.event_times[-1])) - older.last > self._plan.retention:
            return None
        facts = form.packed(self._plan.insert(state, self._state(added)))
        if len(facts.records) > form.stride * self._most(older):
            return None
        flags, settled = facts.flags | parts.flags, max(facts.settled, parts.settled)
        return Row(form.row(facts._replace(flags=flags, settled=settled, base=recent[parts.base : parts.prints]), prints), None)

    def _most(self, older: Older) -> int:
        """How many facts a first row holds before some move to the second: a balance of what either costs to write anew."""
        return max(self._form.few, 2 * math.isqrt(older.facts))

    def _state(self, added: Added) -> State:
        records = np.frombuffer(added.records, self._form.record)
        ids = EventIds(len(records), lambda: b"".join(added.ids))
        return State(records["t"], records["n"], ids, self._form.columns(records, b"".join(added.texts)), self._plan.empty().base)
