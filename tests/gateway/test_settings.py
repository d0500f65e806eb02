from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from mainspring.errors import DeclarationError
from mainspring.gateway.settings import Access, Key, Rate, Seconds, Settings, read_settings

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"
KEY = 'id = "k1"\nclient = "shop"\nsha256 = "' + "0" * 64 + '"\nroles = ["eta:answer"]\n'


def read(folder: Path, text: str) -> Settings:
    file = folder / "gateway.toml"
    file.write_text(text)
    return read_settings(file)


def dotted(kind: Any, place: str = "") -> dict[str, Any]:
    """Every key of the settings with its default."""
    keys: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name = f"{place}{field.name}"
        inner = [
            one
            for one in (field.type, *get_args(field.type))
            if isinstance(one, type) and issubclass(one, msgspec.Struct) and one is not kind
        ]
        if not inner or field.type is not inner[0]:
            keys[name] = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if inner:
            keys |= dotted(inner[0], f"{name}.")
    return keys


def test_the_page_names_every_setting_and_no_other_with_its_default():
    rows = dict(re.findall(r"^\| `([a-z_.0-9]+)` \| (.+?) \|", PAGE.read_text().split("## Settings")[1].split("\n## ")[0], re.MULTILINE))
    keys = dotted(Settings)
    assert set(rows) == set(keys)
    for name, default in keys.items():
        shown = rows[name].strip("`")
        if default is msgspec.NODEFAULT:
            assert shown == "required", name
        elif isinstance(default, Seconds):
            assert read_duration(shown) == default, name
        elif default is None or default in ([], {}):
            assert "`" not in rows[name], name
        else:
            assert shown.strip('"') == str(default), name


def read_duration(text: str) -> float:
    value, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()  # type: ignore[union-attr]
    return int(value) * {"ms": 0.001, "s": 1.0, "m": 60.0}[unit]


def test_the_example_of_the_page_can_be_read(tmp_path):
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    settings = read(tmp_path, example[1])
    assert settings.limits.of("checkout") == Rate(200.0, 400)
    assert settings.access.keys[0].priority == "critical"


def test_what_a_file_says(tmp_path):
    settings = read(
        tmp_path,
        f'[[access.keys]]\n{KEY}expires = 2030-01-01\n[limits.clients.shop]\nday = 5\n[timeouts]\nhead = "250ms"\n'
        '[tls]\ncertificate = "a.pem"\nkey = "b.pem"\n',
    )
    assert settings.timeouts.head == 0.25
    assert settings.access.keys[0].expires == 1_893_456_000_000_000
    assert settings.tls is not None
    assert settings.tls.certificate == tmp_path / "a.pem"
    assert settings.limits.of("shop") == Rate(day=5)
    assert settings.limits.of("other") == Rate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limit]", "limit: there is no such setting. Did you mean 'limits'?"),
        ("[limits]\nrat = 1", "limits.rat: there is no such setting. Did you mean 'rate'?"),
        ("[limits.clients.shop]\nbust = 1", "limits.clients.shop.bust: there is no such setting. Did you mean 'burst'?"),
        (f"[[access.keys]]\n{KEY}role = 1", "access.keys[0].role: there is no such setting. Did you mean 'roles'?"),
        ('[tls]\ncertificat = "a"', "tls.certificat: there is no such setting. Did you mean 'certificate'?"),
        ('[tls]\ncertificate = "a"', "tls: Object missing required field `key`"),
        ("[limits]\nrate = 0", "limits.rate: Expected `float` > 0.0"),
        ("[limits]\nbody = 1.5", "limits.body: Expected `int`"),
        ('[timeouts]\nhead = "5"', "timeouts.head: Duration '5' is not a positive number and a unit"),
        ("[timeouts]\nhead = 5", "timeouts.head: Expected a text such as '5s', got 5"),
        ('[access]\nanonymous = ["eta"]', "access.anonymous"),
        ('[cors]\norigins = ["*"]', "cors.origins"),
        ('[limits]\nstore = "memcached://a"', "limits.store"),
        (f"[[access.keys]]\n{KEY}[[access.keys]]\n{KEY}", "the id 'k1' is there twice"),
        ("[", "cannot be read"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(DeclarationError, match=re.escape(message)):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DeclarationError, match=r"none\.toml: cannot be read"):
        read_settings(tmp_path / "none.toml")


def test_nobody_is_let_in_without_being_known_once_somebody_is_known():
    assert "*:answer" in Access().open_roles
    assert "*:admin" not in Access().open_roles
    assert Access(keys=[Key("k1", "shop", "0" * 64, ["*:*"])]).open_roles == []
    assert Access(keys=[Key("k1", "shop", "0" * 64, ["*:*"])], anonymous=["*:metrics"]).open_roles == ["*:metrics"]


def test_shards_are_here_or_elsewhere(tmp_path):
    assert read(tmp_path, "[shards]\ncount = 2\n").shards.count == 2
    assert read(tmp_path, '[shards]\naddresses = ["a:1", "unix:/b"]\n').shards.addresses == ["a:1", "unix:/b"]
    for text, why in (
        ('[shards]\ncount = 2\naddresses = ["a:1"]\n', "Give one of the two"),
        ('[shards]\naddresses = ["a"]\n', "shards.addresses"),
        ("[shards]\ncount = -1\n", "shards.count"),
    ):
        with pytest.raises(DeclarationError, match=why):
            read(tmp_path, text)
