import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import RegistryError
from mainspring.model_registry import MOVES, Decision, Deployment, fold, step


def decision(seq: int, action: str, version: str = "", at: int | None = None, **evidence: object) -> Decision:
    return Decision(seq, seq * 10 if at is None else at, "eta", action, version, "test", "because", evidence)


RELEASE = [
    decision(1, "promote", "m1"),
    decision(2, "trigger"),
    decision(3, "shadow", "m2"),
    decision(4, "canary", "m2", share=0.01),
    decision(5, "hold"),
    decision(6, "canary", "m2", share=0.1),
    decision(7, "promote", "m2"),
    decision(8, "roll_back"),
]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (9, Deployment()),
        (10, Deployment("m1", None, None, "steady", 0.0, 10, 1)),
        (29, Deployment("m1", None, None, "steady", 0.0, 10, 1)),
        (30, Deployment("m1", None, "m2", "shadow", 0.0, 30, 3)),
        (59, Deployment("m1", None, "m2", "canary", 0.01, 40, 4)),
        (60, Deployment("m1", None, "m2", "canary", 0.1, 60, 6)),
        (70, Deployment("m2", "m1", None, "steady", 0.0, 70, 7)),
        (None, Deployment("m1", None, None, "steady", 0.0, 80, 8)),
    ],
)
def test_what_was_live_at_an_instant(at: int | None, expected: Deployment) -> None:
    assert fold(RELEASE, at) == expected


def test_roll_back_drops_the_challenger_before_the_champion() -> None:
    live = fold(RELEASE[:6])
    assert step(live, decision(7, "roll_back", "m2")) == Deployment("m1", None, None, "steady", 0.0, 70, 7)


@pytest.mark.parametrize(
    ("before", "move", "why"),
    [
        (0, decision(9, "shadow", "m2"), "no champion"),
        (0, decision(9, "canary", "m2", share=0.1), "no challenger"),
        (0, decision(9, "promote"), "no version is named"),
        (0, decision(9, "roll_back"), "no challenger to drop and no previous"),
        (1, decision(9, "roll_back"), "no challenger to drop and no previous"),
        (1, decision(9, "shadow", "m1"), "champion is m1"),
        (1, decision(9, "shadow"), "champion is m1"),
        (1, decision(9, "promote", "m2"), "no challenger"),
        (1, decision(9, "promote", "m1"), "no challenger"),
        (3, decision(9, "promote", "m3"), "challenger is m2"),
        (3, decision(9, "canary", "m3", share=0.1), "challenger is m2"),
        (3, decision(9, "canary", "m2"), "share"),
        (3, decision(9, "canary", "m2", share=0), "share"),
        (3, decision(9, "canary", "m2", share=1.01), "share"),
        (3, decision(9, "canary", "m2", share=True), "share"),
        (3, decision(9, "canary", "m2", share=float("nan")), "share"),
        (3, decision(9, "roll_back", "m1"), "would drop m2"),
        (7, decision(9, "roll_back", "m1"), "would drop m2"),
    ],
)
def test_impossible_moves_are_refused(before: int, move: Decision, why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        step(fold(RELEASE[:before]), move)


def test_a_late_written_decision_cannot_change_the_past() -> None:
    history = [*RELEASE, decision(9, "shadow", "m3", at=15)]
    for at in range(0, 80, 5):
        assert fold(history, at) == fold(RELEASE, at)
    assert fold(history, 80).challenger == "m3"


@given(st.lists(st.tuples(st.sampled_from([*MOVES, "hold"]), st.sampled_from(["", "m1", "m2", "m3"]), st.floats(0.1, 1)), max_size=30))
def test_every_reachable_deployment_is_sound(tried: list[tuple[str, str, float]]) -> None:
    deployment, accepted = Deployment(), []
    for seq, (action, version, share) in enumerate(tried, 1):
        move = decision(seq, action, version, share=share)
        try:
            deployment = step(deployment, move)
        except RegistryError:
            continue
        accepted.append(move)
        assert (deployment.champion is None) == (deployment.stage == "empty")
        assert (deployment.challenger is not None) == (deployment.stage in ("shadow", "canary"))
        assert (deployment.share > 0) == (deployment.stage == "canary")
        live = [version for version in (deployment.champion, deployment.challenger) if version]
        assert len(set(live)) == len(live)
        assert deployment.champion is None or deployment.champion != deployment.previous
    assert fold(accepted) == deployment
