"""Files that run a system elsewhere: valid by the schemas of Kubernetes, sized by what is required, refused where they cannot work."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from mainspring.cli import main
from mainspring.design.kubernetes import Addresses, manifests, yaml
from mainspring.design.nginx import configuration
from mainspring.design.ray_serve import configuration as on_ray
from mainspring.design.sizing import Sizing, measured_rate
from mainspring.storage.workspace import Workspace
from mainspring.systems.eta import system

ADDRESSES = Addresses("redis://events:6379/0#eta", "redis://online:6379/0#eta", "postgresql://db/registry")
STORES = ["--events", ADDRESSES.events, "--online", ADDRESSES.online, "--registry", ADDRESSES.registry]
MADE = manifests(system, Sizing.of(system, 2, 1_000.0), ADDRESSES, image="eta:1", gateway="gateway")
NOT_OF_KUBERNETES = {"route"}

values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(max_codepoint=0x7E)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"\A[a-z]{3}[A-Z][a-z0-9.]{0,8}\Z"), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_yaml_says_what_was_said(value: Any) -> None:
    parser = pytest.importorskip("yaml", reason="PyYAML is not installed")
    assert parser.safe_load(yaml(value)) == value


@pytest.mark.parametrize("name", sorted(set(MADE) - NOT_OF_KUBERNETES))
def test_a_manifest_is_valid(name: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    schemas.validate(MADE[name], schemas.latest_version(), strict=True)


def test_a_replica_has_time_to_drain_and_no_rights() -> None:
    pod = MADE["deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["terminationGracePeriodSeconds"] >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + 14 + 1
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "--no-stream" in container["command"]
    assert MADE["stream"]["spec"]["strategy"] == {"type": "Recreate"}


def test_the_route_leads_both_faces_of_the_system_to_its_service() -> None:
    (rule,) = MADE["route"]["spec"]["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/v1/eta", "/v2/models/eta"]
    assert re.fullmatch(r"([0-9]{1,5}(h|m|s|ms)){1,4}", rule["timeouts"]["request"])
    (port,) = MADE["service"]["spec"]["ports"]
    assert rule["backendRefs"] == [{"name": MADE["service"]["metadata"]["name"], "port": port["port"]}]


def test_sizes_follow_the_requirements() -> None:
    needs = ms.Requirements(peak_rps=2_000, latency_p99="120ms", cost_per_1k=0.001, cpu_hour_price=0.05)
    declared = dataclasses.replace(system, requirements=needs)
    assert Sizing.of(declared, workers=2, rate=250.0) == Sizing(2, 250.0, replicas=7, most_replicas=72, limit_seconds=3)
    assert Sizing.of(declared, workers=2, rate=None).replicas == 2
    assert Sizing.of(dataclasses.replace(system, requirements=ms.Requirements()), 1, 10.0) == Sizing(1, 10.0, 2, 4, 10)


def test_the_rate_is_that_of_the_report(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    assert measured_rate(space) is None
    space.report.mkdir()
    (space.report / "report.json").write_text(json.dumps({"verdicts": [{"requirement": "peak requests/s", "value": 812.5}]}))
    assert measured_rate(space) == 812.5


def test_on_ray_a_replica_is_one_process_whose_door_judges_overload(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[overload]\nin_flight = 7\n")
    made = on_ray(system, tmp_path, Sizing(1, None, 2, 4, 3), tmp_path / "gateway.toml")
    (application,) = made["applications"]
    (deployment,) = application["deployments"]
    assert application["args"] == {"workspace": str(tmp_path), "settings": str(tmp_path / "gateway.toml")}
    assert (deployment["max_ongoing_requests"], made["http_options"]["request_timeout_s"]) == (7, 3)
    assert deployment["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 4}


def test_nginx_knows_every_replica() -> None:
    text = configuration(system, ["10.0.0.5:8000", "10.0.0.6:8000"], Sizing(2, None, 2, 4, 3), listen="127.0.0.1:8080")
    assert text.count("max_fails=1") == 2
    assert "proxy_read_timeout 3s;" in text
    assert "{" in text
    assert text.count("{") == text.count("}")


def test_the_verb_writes_files_and_says_what_is_next(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["deploy", "eta", "--target", "kubernetes", "--out", str(tmp_path / "k"), *STORES])
    assert done.exit_code == 0, done.output
    assert {file.stem for file in (tmp_path / "k").iterdir()} == set(MADE)
    assert "give --rate" in done.output
    assert "kubectl apply" in done.output
    done = CliRunner().invoke(main, ["deploy", "eta", "--target", "nginx", "--out", str(tmp_path / "n"), "--replica", "a:1", "--json"])
    assert json.loads(done.output)["files"] == ["nginx.conf"]
    done = CliRunner().invoke(main, ["deploy", "eta", "--target", "ray", "--out", str(tmp_path / "r"), "--workspace", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "2 replicas of 1 workers" in done.output
    assert f"serve run {tmp_path / 'r' / 'serve.yaml'}" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nginx"], 2, "give --replica HOST:PORT"),
        (["ray"], 2, "give --workspace"),
        (["kubernetes"], 2, "the address of events is not known. Give a server's with --events"),
        (["kubernetes", *STORES[:2], "--online", "lmdb:here", *STORES[4:]], 2, "online is lmdb:here, which one machine alone can reach"),
    ],
)
def test_what_cannot_work_is_refused(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["deploy", "eta", "--out", str(tmp_path), "--target", *arguments])
    assert done.exit_code == code
    assert said in done.output
