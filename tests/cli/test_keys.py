from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mainspring.cli import main
from mainspring.clock import SystemClock
from mainspring.gateway.door.access import Client, Gatekeeper
from mainspring.gateway.settings import read_settings


def test_a_new_key_opens_the_door_that_its_lines_are_put_into(tmp_path):
    printed = CliRunner().invoke(main, ["keys", "new", "--client", "shop", "--roles", "eta:answer,*:metrics", "--expires", "90d"]).output
    secret = printed.split("once: ")[1].split()[0]
    lines = printed.split("settings:")[1].split("Next:")[0]
    assert secret not in lines
    file = tmp_path / "gateway.toml"
    file.write_text(lines)
    found = Gatekeeper(read_settings(file).access).identify({b"x-api-key": secret.encode()}, "", SystemClock().now())
    assert found == Client("shop", frozenset({"eta:answer", "*:metrics"}))


def test_as_json():
    made = json.loads(CliRunner().invoke(main, ["keys", "new", "--client", "shop", "--roles", "eta:*", "--json"]).output)
    assert made["key"]["roles"] == ["eta:*"]


@pytest.mark.parametrize(("option", "value"), [("--roles", "eta"), ("--roles", "eta:fly"), ("--client", "a b")])
def test_what_is_no_role_or_name(option, value):
    arguments = {"--client": "shop", "--roles": "eta:answer"} | {option: value}
    result = CliRunner().invoke(main, ["keys", "new", *(word for pair in arguments.items() for word in pair)])
    assert result.exit_code == 2
    assert option in result.output
