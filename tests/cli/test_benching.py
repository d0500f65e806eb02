from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from load_app import serving

from mainspring.cli import main

SHORT = ["--duration", "300ms", "--warm-up", "100ms"]


@pytest.fixture(scope="module")
def url():
    with serving() as url:
        yield url


def ask(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["bench", *arguments])
    return result.exit_code, result.output


def test_any_address_with_a_body_is_measured(url):
    code, out = ask("--url", url, "--body", "{}", "--rate", "100", "--arrivals", "constant", *SHORT)
    assert code == 0
    assert "open loop, latencies in ms" in out


def test_figures_as_json_and_a_page_with_plots(url, tmp_path):
    page = tmp_path / "bench.html"
    code, out = ask("--url", url, "--body", "{}", "--closed", "--connections", "2", "--page", str(page), "--json", *SHORT)
    assert code == 0
    load = json.loads(out)["loads"][0]
    assert (load["mode"], load["connections"], load["failures"]) == ("closed", 2, {})
    assert load["latency_ms"]["p50"] > 0
    assert page.read_text().count("<svg") == 2


def test_a_broken_promise_has_its_exit_code(url):
    assert ask("--url", url, "--body", '{"sleep": 0.05}', "--p99", "10ms", *SHORT)[0] == 9


def test_the_most_that_holds_is_looked_for(url):
    arguments = ["--url", url, "--body", '{"sleep": 0.02}', "--connections", "2", "--find-max", "--p99", "100ms", "--rate", "25"]
    code, out = ask(*arguments, "--arrivals", "constant", "--json", *SHORT)
    found = json.loads(out)
    assert code == (0 if found["max_rate"] else 9)
    assert found["max_rate"] <= 250
    assert found["because"]
    assert len(found["loads"]) >= 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "Name a SYSTEM"),
        (["--url", "http://127.0.0.1:1/"], "Name a SYSTEM"),
        (["eta", "--body", "{}", "--requests", "log"], "give one"),
        (["eta", "--find-max"], "--find-max needs --p99"),
        (["eta", "--arrivals", "recorded"], "--arrivals recorded needs"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, wrong):
    code, out = ask(*arguments)
    assert code == 2
    assert wrong in out


def test_made_requests_that_a_system_would_refuse_are_not_sent(url):
    code, out = ask("eta", "--url", url, *SHORT)
    assert code == 3
    assert "Send answered ones with --requests log" in out
