"""Parts that configuration is made of: strict nodes, globs, names, amounts, durations."""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vestibule.core.money import parse_usd
from vestibule.core.text.globs import ImpossibleGlob, check_glob
from vestibule.core.text.names import NameRefused, canonical_endpoint, canonical_host


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _nano(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ValueError("write an amount of US dollars, such as 2.50")
    return parse_usd(str(value))


NanoUsd = Annotated[
    int,
    BeforeValidator(_nano, json_schema_input_type=float | str),
    Field(description="US dollars as a decimal, at most nine places"),
]


def _glob(value: str) -> str:
    try:
        check_glob(value)
    except ImpossibleGlob as error:
        raise ValueError(str(error)) from None
    return value.rstrip("/") + "/**" if value.endswith("/") else value


def as_endpoint(value: str) -> str:
    try:
        host, port = canonical_endpoint(value)
    except NameRefused as error:
        raise ValueError(str(error)) from None
    return f"{host}:{port}"


def _host(value: str) -> str:
    try:
        return canonical_host(value)
    except NameRefused as error:
        raise ValueError(str(error)) from None


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Glob = Annotated[str, BeforeValidator(lambda v: _glob(v) if isinstance(v, str) else v)]
Globs = Annotated[tuple[Glob, ...], BeforeValidator(as_tuple)]
Host = Annotated[str, BeforeValidator(lambda v: _host(v) if isinstance(v, str) else v)]
Endpoint = Annotated[str, BeforeValidator(lambda v: as_endpoint(v) if isinstance(v, str) else v)]
Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Argv = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]


def _duration(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,4}[mhd]", value):
        return int(value[:-1]) * {"m": 60, "h": 3600, "d": 86400}[value[-1]]
    raise ValueError("write a duration such as 30m, 12h or 7d")


Seconds = Annotated[int, BeforeValidator(_duration, json_schema_input_type=str)]


class KeySource(Strict):
    """Where a provider's key comes from. Never the key itself."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one(self) -> KeySource:
        if (self.env is None) == (self.file is None):
            raise ValueError("name exactly one source: env or file")
        return self


def _pin(value: str) -> str:
    host, separator, port = value.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(f"{value!r}: write address:port, for example 10.0.0.7:443 or [2001:db8::7]:443") from None
    if not separator or not port.isdigit() or not 0 < int(port) < 65536 or (address.version == 6) != (host[:1] == "["):
        raise ValueError(f"{value!r}: write address:port, for example 10.0.0.7:443 or [2001:db8::7]:443")
    return value


Pin = Annotated[str, BeforeValidator(lambda v: _pin(v) if isinstance(v, str) else v)]


def local_host(host: str) -> bool:
    """Whether `name[:port]` of a URL is this machine by its very spelling."""
    name = re.sub(r":[0-9]{1,5}\Z", "", host)
    return re.fullmatch(r"127(?:\.[0-9]{1,3}){3}|localhost|\[::1\]", name) is not None
