"""Versions put in shadow and promoted by hand."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from delivery import NOW, build
from mainspring.cli import main
from mainspring.model_registry import Registry


def test_a_version_is_released_by_hand_and_one_that_the_gate_refused_only_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["rollout", "delivery", "--workspace", "space", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    monkeypatch.chdir(tmp_path)
    registry = Registry(build(tmp_path / "space").registry)
    version = registry.version("model:delivery:1")
    for at in (1, 2):
        registry.register("model", "delivery", version.manifest, {}, at=NOW + at)
    registry.decide("delivery", "gate_passed", "model:delivery:2", at=NOW, by="gate", reason="as good")
    registry.decide("delivery", "gate_refused", "model:delivery:3", at=NOW, by="gate", reason="mae lost 2")
    registry.close()
    assert json.loads(run("--shadow", "2", "--reason", "half the size", "--json"))["evidence"] == {}
    run("--promote", "2")
    assert "the gate refused it on 2025-02-10T00:00:00Z (mae lost 2). Release one that passed" in run("--shadow", "3", code=5)
    run("--shadow", "3", "--despite", "the fleet is new")
    assert json.loads(run("--promote", "challenger", "--json"))["action"] == "promote"
    assert "by hand; despite the gate: the fleet is new" in run()
    assert json.loads(run("--at", "2100-01-01T00:00:00Z", "--json"))["champion"] == "model:delivery:3"
    for misuse in (["--despite", "x"], ["--back", "--despite", "x"], ["--shadow", "2", "--promote", "2"], ["--at", "2100-01-01", "--back"]):
        run(*misuse, code=2)
