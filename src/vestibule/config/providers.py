"""Model providers: the operator's, with addresses and key sources."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vestibule.config.parts import KeySource, Names, Strict
from vestibule.core.labels import Confidentiality


class Provider(Strict):
    """A model provider. `scripted` answers from a script: it is no model, and every surface says so."""

    api: Literal["anthropic", "scripted"]
    base_url: str = ""
    key: KeySource | None = None
    script: str = ""
    models: Names = ()
    clearance: Annotated[Confidentiality, Field(strict=False)] = Confidentiality.SECRET
    """The most confidential data that may go to it: a run that has read more sends it nothing any more."""

    @model_validator(mode="after")
    def _complete(self) -> Provider:
        if self.api == "scripted":
            if not self.script or self.base_url or self.key:
                raise ValueError("a scripted provider has a script and neither base_url nor key")
        elif not self.base_url:
            raise ValueError("base_url is missing")
        elif not re.fullmatch(r"https?://[^\s?#@]+", self.base_url):
            raise ValueError("base_url is an http(s) URL without user, query or fragment")
        return self
