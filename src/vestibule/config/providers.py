"""Model providers: the operator's, with addresses and key sources."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from vestibule.config.parts import KeySource, Names, Pin, Strict, as_tuple, local_host
from vestibule.core.labels import Confidentiality

Api = Literal["anthropic", "openai", "azure", "gemini", "vertex", "watsonx", "scripted"]
Speaks = Literal["anthropic", "responses", "chat", "gemini"]
SPOKEN: dict[Api, tuple[Speaks, ...]] = {
    "anthropic": ("anthropic",),
    "openai": ("responses", "chat"),
    "azure": ("responses", "chat"),
    "gemini": ("gemini",),
    "vertex": ("gemini",),
    "watsonx": ("chat",),
    "scripted": ("anthropic", "responses", "chat", "gemini"),
}
"""Wire formats of an API. A provider may say that it serves fewer (`speaks`)."""


class Provider(Strict):
    """A model provider. `scripted` answers from a script: it is no model, and every surface says so."""

    api: Api
    base_url: str = ""
    key: KeySource | None = None
    script: str = ""
    models: Names = ()
    clearance: Annotated[Confidentiality, Field(strict=False)] = Confidentiality.SECRET
    """The most confidential data that may go to it: a run that has read more sends it nothing any more."""
    speaks: Annotated[tuple[Speaks, ...], BeforeValidator(as_tuple)] = ()
    """Of the formats of its API only these: a server that is compatible with OpenAI's often has `chat` alone."""
    address: Pin | None = None
    """Where its name leads, instead of a look-up: an address and a port."""
    private: bool = False
    """Whether its name may lead to an inner address, and may be reached without TLS."""
    api_version: str = ""
    """Azure: of the classic deployments' endpoint, instead of the v1 one. watsonx: a date."""
    project: str = ""
    """watsonx: the project's id. Vertex: the project."""
    space: str = ""
    """watsonx: the deployment space's id, instead of a project's."""
    location: str = ""
    """Vertex: the region."""
    token_url: str = ""
    """watsonx and Vertex: where the key is exchanged for a token of an hour."""
    seconds: Annotated[int, Field(gt=0, le=3600)] = 180
    """The longest silence before and within an answer."""
    failures: Annotated[int, Field(gt=0, le=100)] = 5
    """So many failures in a row, and it is left alone for `pause_seconds` when there is another to ask."""
    pause_seconds: Annotated[int, Field(gt=0, le=3600)] = 30

    @property
    def formats(self) -> tuple[Speaks, ...]:
        """The wire formats that it serves."""
        return self.speaks or SPOKEN[self.api]

    @model_validator(mode="after")
    def _complete(self) -> Provider:
        if self.api == "scripted":
            if not self.script or self.base_url or self.key:
                raise ValueError("a scripted provider has a script and neither base_url nor key")
            return self
        if not self.base_url:
            raise ValueError("base_url is missing")
        self._reached(self.base_url, "base_url")
        if self.token_url:
            self._reached(self.token_url, "token_url")
        for spoken in self.speaks:
            if spoken not in SPOKEN[self.api]:
                raise ValueError(f"an api of {self.api} does not speak {spoken}")
        if self.api == "vertex" and not (self.project and self.location and self.key):
            raise ValueError("vertex needs a project, a location and a key (a service account's file)")
        if self.api == "watsonx" and not (bool(self.project) ^ bool(self.space)):
            raise ValueError("watsonx needs either a project or a space")
        for name in ("project", "space", "location", "api_version"):
            if not re.fullmatch(r"[A-Za-z0-9._:-]{0,100}", getattr(self, name)):
                raise ValueError(f"{name} has letters, digits, '.', '_', ':' and '-'")
        return self

    def _reached(self, url: str, key: str) -> None:
        found = re.fullmatch(r"(https?)://([^\s/?#@\\]+)(/[^\s?#\\]*)?", url)
        if found is None or not url.isascii():
            raise ValueError(f"{key} is an http(s) URL without user, query or fragment")
        if found[1] == "http" and not self.private and not local_host(found[2]):
            raise ValueError(f"{key}: without TLS only on this machine, or with `private: true`")
