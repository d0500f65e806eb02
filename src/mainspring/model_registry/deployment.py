"""What is live: a fold over the decisions about one system, so that "current" is a view and "at time t" a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mainspring.clock import format_instant
from mainspring.errors import RegistryError

RELEASES = ("shadow", "canary", "promote")
MOVES = (*RELEASES, "roll_back")
GATE = ("gate_passed", "gate_refused")
DESPITE = "despite"


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of the record: who decided what about which version, when, why, and on what evidence (JSON)."""

    seq: int
    at: int
    system: str
    action: str
    version: str
    by: str
    reason: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which model versions answer for a system.

    ``stage`` is ``empty`` (nothing promoted yet), ``steady`` (the champion alone), ``shadow`` (the challenger answers
    unseen) or ``canary`` (it answers the ``share`` of the traffic). ``since`` and ``seq`` are the instant and the number of
    the decision that led here, 0 where there was none.
    """

    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None
    stage: str = "empty"
    share: float = 0.0
    since: int = 0
    seq: int = 0


def fold(decisions: Iterable[Decision], at: int | None = None) -> Deployment:
    """The deployment after the decisions, given by rising ``seq``, or after those taken by the instant ``at``.

    A decision that is dated before an earlier one of the record counts from that one's instant, for it cannot have been in
    force earlier: what was live at a past instant never changes afterwards.

    Raises:
        RegistryError: a decision is impossible where it stands.
    """
    deployment = Deployment()
    for decision in decisions:
        if decision.action in MOVES:
            if at is not None and decision.at > at:
                break
            deployment = step(deployment, decision)
    return deployment


def step(deployment: Deployment, decision: Decision) -> Deployment:
    """The deployment after one more decision; actions other than `MOVES` leave it as it is.

    ``shadow`` makes a version the challenger (in place of another), ``canary`` gives the challenger ``evidence['share']`` of
    the traffic, ``promote`` makes it (or the first version ever) the champion, ``roll_back`` drops the challenger, or, where
    there is none, puts the previous champion back, or with ``evidence['to']`` that version, whatever else is live. A ``roll_back``
    may name the version that it drops, and is then refused when that is no longer the one.

    Raises:
        RegistryError: the move is impossible from here.
    """
    move = {"shadow": _shadow, "canary": _canary, "promote": _promote, "roll_back": _roll_back}.get(decision.action)
    if move is None:
        return deployment
    return replace(move(deployment, decision), since=decision.at, seq=decision.seq)


def refusal(decisions: Iterable[Decision], version: str) -> Decision | None:
    """The gate's last word about a version, if that is a refusal; the decisions are given by rising ``seq``."""
    words = [one for one in decisions if one.version == version and one.action in GATE]
    return words[-1] if words and words[-1].action == "gate_refused" else None


def check_release(decisions: Sequence[Decision], decision: Decision) -> None:
    """Refuse one of `RELEASES` of a version that the gate refused, unless ``evidence['despite']`` says why it is released all the same.

    What is said to one of them goes for those that follow, until the gate refuses the version again or something is rolled back.

    Raises:
        RegistryError: it is refused, or ``evidence['despite']`` is no text.
    """
    despite, refused = decision.evidence.get(DESPITE), refusal(decisions, decision.version)
    if despite is not None and not (isinstance(despite, str) and despite.strip()):
        raise _impossible(decision, f"evidence['despite'] is {despite!r}. Say why the version is released although the gate refused it")
    if decision.action not in RELEASES or refused is None or despite is not None or _overruled(decisions, refused):
        return
    raise _impossible(
        decision,
        f"the gate refused it on {format_instant(refused.at)} ({refused.reason}). Release one that passed, or say why this one is released "
        "all the same: --despite REASON, in Python evidence={'despite': REASON}",
    )


def _overruled(decisions: Iterable[Decision], refused: Decision) -> bool:
    since = [one for one in decisions if one.seq > refused.seq]
    last = max((one.seq for one in since if one.action == "roll_back"), default=0)
    return any(one.seq > last and one.version == refused.version and DESPITE in one.evidence for one in since if one.action in RELEASES)


def _shadow(deployment: Deployment, decision: Decision) -> Deployment:
    if deployment.champion is None:
        raise _impossible(decision, "there is no champion to stand behind. Promote the first version")
    if not decision.version or decision.version == deployment.champion:
        raise _impossible(decision, f"the champion is {deployment.champion}. Name another version")
    return replace(deployment, challenger=decision.version, stage="shadow", share=0.0)


def _canary(deployment: Deployment, decision: Decision) -> Deployment:
    _needs_challenger(deployment, decision)
    share = decision.evidence.get("share")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise _impossible(decision, f"evidence['share'] is {share!r}. Give the share of the traffic, above 0 and at most 1")
    return replace(deployment, stage="canary", share=float(share))


def _promote(deployment: Deployment, decision: Decision) -> Deployment:
    if deployment.champion is not None:
        _needs_challenger(deployment, decision)
    elif not decision.version:
        raise _impossible(decision, "no version is named. Name the one to promote")
    return Deployment(champion=decision.version, previous=deployment.champion, stage="steady")


def _roll_back(deployment: Deployment, decision: Decision) -> Deployment:
    dropped = deployment.challenger or deployment.champion
    if decision.version and decision.version != dropped:
        raise _impossible(decision, f"it would drop {dropped}. Look at the deployment again and name that, or none")
    to = decision.evidence.get("to")
    if to is not None:
        if to == dropped or dropped is None:
            raise _impossible(decision, f"it would put {to} in place of {dropped}. Name another version")
        return Deployment(champion=to, stage="steady")
    if deployment.challenger is not None:
        return replace(deployment, challenger=None, stage="steady", share=0.0)
    if deployment.previous is None:
        raise _impossible(decision, "there is no challenger to drop and no previous champion. Promote another version")
    return Deployment(champion=deployment.previous, stage="steady")


def _needs_challenger(deployment: Deployment, decision: Decision) -> None:
    if deployment.challenger is None:
        raise _impossible(decision, "there is no challenger. Put the version in shadow first")
    if decision.version != deployment.challenger:
        raise _impossible(decision, f"the challenger is {deployment.challenger}. Put this version in shadow first")


def _impossible(decision: Decision, why: str) -> RegistryError:
    subject = f"{decision.action} {decision.version}".strip()
    return RegistryError(f"System '{decision.system}': {subject} is impossible: {why}.")
