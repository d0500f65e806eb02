"""How one deployment guards its door: who may come in, how much, how long, and what is written down. Not part of a System."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from mainspring.clock import SECOND, parse_duration, parse_instant
from mainspring.errors import DeclarationError, did_you_mean

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$"
ROLE = r"^([A-Za-z0-9_-]+|\*):(answer|events|explain|describe|metrics|admin|\*)$"
Name = Annotated[str, Meta(pattern=NAME)]
Role = Annotated[str, Meta(pattern=ROLE)]
Priority = Literal["critical", "default", "sheddable"]

UNGUARDED: list[Role] = ["*:answer", "*:events", "*:explain", "*:describe", "*:metrics"]


class Seconds(float):
    """A duration; in the file a text such as ``500ms`` or ``5s``."""


class Instant(int):
    """An instant, microseconds since the epoch; in the file an ISO 8601 text, UTC without an offset."""


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """An API key: who holds it and what it may do. Of the key itself only the SHA-256 is kept."""

    id: Name
    client: Name
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    roles: list[Role]
    expires: Instant | None = None
    priority: Priority = "default"


class Jwt(Struct, frozen=True, forbid_unknown_fields=True):
    """Bearer tokens of an identity provider."""

    jwks: Path
    issuer: str
    audience: str
    leeway: Seconds = Seconds(30)
    client_claim: str = "sub"
    roles_claim: str = "roles"


class Access(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may come in. ``anonymous`` are the roles of a client that shows nothing."""

    keys: list[Key] = []
    jwt: Jwt | None = None
    certificates: dict[Name, list[Role]] = {}
    anonymous: list[Role] | None = None

    @property
    def open_roles(self) -> list[Role]:
        """What a client may do that shows nothing: all but administration where nobody is known, else nothing."""
        if self.anonymous is not None:
            return self.anonymous
        return [] if self.keys or self.jwt or self.certificates else UNGUARDED


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """A token bucket (requests a second, how many at once) and quotas of whole UTC days and months; None is no limit."""

    rate: Positive | None = None
    burst: Count | None = None
    day: Count | None = None
    month: Count | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much one client may ask of one system, and how large a request may be (bytes); ``memory`` is for versions that are asked for."""

    store: Annotated[str, Meta(pattern="^(|rediss?://.+|unix://.+)$")] = ""
    rate: Positive | None = None
    burst: Count | None = None
    day: Count | None = None
    month: Count | None = None
    clients: dict[Name, Rate] = {}
    body: Count = 1 << 20
    bodies: dict[str, Count] = {}
    headers: Count = 100
    head: Count = 16 << 10
    url: Count = 4 << 10
    memory: Count = 256 << 20

    def of(self, client: str) -> Rate:
        """The client's own limits where it has some, else everybody's."""
        return self.clients.get(client) or Rate(self.rate, self.burst, self.day, self.month)


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """How long a client may take, and how many connections may be open at once."""

    head: Seconds = Seconds(5)
    body: Seconds = Seconds(10)
    idle: Seconds = Seconds(30)
    write: Seconds = Seconds(10)
    connections: Count = 2048


class Overload(Struct, frozen=True, forbid_unknown_fields=True):
    """When requests are refused because those before them have to wait."""

    target: Seconds = Seconds(0.050)
    interval: Seconds = Seconds(0.500)
    in_flight: Count = 1000


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """The access log: a file, ``-`` for standard error, nothing without it; ``successes`` is the share of 2xx that is kept."""

    file: str = ""
    successes: Share = 1.0
    queue: Count = 10_000


class Cors(Struct, frozen=True, forbid_unknown_fields=True):
    """Browser origins that may read answers: exact (``https://a.example``) or every host under a suffix (``.example.com``)."""

    origins: list[Annotated[str, Meta(pattern=r"^(https?://[^/*]+|\.[^/*:]+)$")]] = []
    max_age: Seconds = Seconds(600)


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """Certificate and key in PEM files, reread when renewed; with ``client_ca`` every client must show a certificate of it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Grpc(Struct, frozen=True, forbid_unknown_fields=True):
    """The port of the Open Inference Protocol over gRPC, 0 for a free one; None is no gRPC."""

    port: Annotated[int, Meta(ge=0, le=65535)] | None = None


class Traces(Struct, frozen=True, forbid_unknown_fields=True):
    """Where spans go (OTLP over HTTP), nowhere without an endpoint; ``ratio`` is the share of the traces begun here."""

    endpoint: Annotated[str, Meta(pattern="^(|https?://.+)$")] = ""
    ratio: Share = 1.0


class Shards(Struct, frozen=True, forbid_unknown_fields=True):
    """Who holds the large tables of nets: ``count`` processes beside the workers, or those at ``addresses``; workers themselves without."""

    count: Annotated[int, Meta(ge=0)] = 0
    addresses: list[Annotated[str, Meta(pattern=r"^(unix:.+|.+:[0-9]{1,5})$")]] = []
    deadline: Seconds = Seconds(0.1)


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it; every part has safe defaults. docs/gateway.md says what each key does."""

    access: Access = Access()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    overload: Overload = Overload()
    log: Log = Log()
    cors: Cors = Cors()
    tls: Tls | None = None
    grpc: Grpc = Grpc()
    traces: Traces = Traces()
    shards: Shards = Shards()


def read_settings(file: Path) -> Settings:
    """Settings from a TOML file; paths in it are relative to its folder.

    Raises:
        DeclarationError: the file cannot be read, or holds what is no setting; the message names the key and the mend.
    """
    try:
        table = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeclarationError(f"Settings {file}: cannot be read ({error}). Name a TOML file.") from error
    _refuse_unknown(table, Settings, "", file)

    def convert(wanted: type, value: Any) -> Any:
        return _convert(wanted, value, file.parent)

    try:
        settings = msgspec.convert(table, Settings, dec_hook=convert)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$.")
        raise DeclarationError(f"Settings {file}, {place.rstrip('`') or 'top'}: {what}. docs/gateway.md says what fits.") from error
    twice = {key.id for key in settings.access.keys if sum(other.id == key.id for other in settings.access.keys) > 1}
    if twice:
        raise DeclarationError(f"Settings {file}, access.keys: the id '{min(twice)}' is there twice. Give each key its own.")
    if settings.shards.count and settings.shards.addresses:
        raise DeclarationError(
            f"Settings {file}, shards: shards are started here (count) or run elsewhere (addresses). Give one of the two."
        )
    return settings


def _convert(wanted: type, value: Any, folder: Path) -> Any:
    if wanted is Path and isinstance(value, str):
        return folder / value
    if wanted is Seconds and isinstance(value, str):
        try:
            return Seconds(parse_duration(value) / SECOND)
        except DeclarationError as error:
            raise ValueError(str(error).rstrip(".")) from error
    if wanted is Instant:
        return Instant(parse_instant(value if isinstance(value, str) else value.isoformat()))
    raise ValueError(f"Expected a text such as {'5s' if wanted is Seconds else 'a path'!r}, got {value!r}")


def _refuse_unknown(table: Any, kind: Any, place: str, file: Path) -> None:
    """Walk tables beside their structs; msgspec finds unknown keys too, but suggests none."""
    kind = next((one for one in get_args(kind) if one is not type(None)), kind) if type(None) in get_args(kind) else kind
    arguments = get_args(kind)
    if isinstance(table, list) and arguments:
        for number, row in enumerate(table):
            _refuse_unknown(row, arguments[0], f"{place}[{number}]", file)
    elif isinstance(table, dict) and arguments:
        for name, value in table.items():
            _refuse_unknown(value, arguments[-1], f"{place}.{name}", file)
    elif isinstance(table, dict) and isinstance(kind, type) and issubclass(kind, Struct):
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        for name, value in table.items():
            here = f"{place}.{name}".lstrip(".")
            if name not in fields:
                raise DeclarationError(f"Settings {file}, {here}: there is no such setting.{did_you_mean(name, fields)}")
            _refuse_unknown(value, fields[name], here, file)
