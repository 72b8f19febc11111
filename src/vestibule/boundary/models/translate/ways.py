"""What is between a client's format and one provider: a translation, a dialect, or nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vestibule.boundary.models.formats.base import FormatName
from vestibule.boundary.models.translate import Stream, Translation, translate
from vestibule.boundary.models.translate.dialects import Dialect, Finished, spelt


class Dialected:
    """Chat Completions as one kind of server speaks them, behind a translation if there is one."""

    def __init__(
        self, inner: Translation | None, dialect: Dialect, *, place: Mapping[str, str] | None = None, model: str = ""
    ) -> None:
        self._inner = inner
        self._dialect = dialect
        self._place = place
        self._model = model

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self._inner.request(body) if self._inner is not None else body
        return spelt(found, self._dialect, place=self._place, model=self._model)

    def headers(self, *, stream: bool) -> dict[str, str]:
        return {"accept": "text/event-stream" if stream else "application/json"}

    def stream(self) -> Stream:
        inner = self._inner.stream() if self._inner is not None else None
        if self._dialect != "watsonx":
            return inner if inner is not None else _Same()
        return _Behind(Finished(), inner) if inner is not None else Finished()

    def whole(self, data: bytes) -> bytes:
        return self._inner.whole(data) if self._inner is not None else data

    def error(self, status: int, data: bytes) -> bytes:
        return self._inner.error(status, data) if self._inner is not None else data


class _Same:
    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class _Behind:
    """One stream's bytes through another."""

    def __init__(self, first: Stream, second: Stream) -> None:
        self._first = first
        self._second = second

    def feed(self, data: bytes) -> bytes:
        return self._second.feed(self._first.feed(data))

    def end(self) -> bytes:
        return self._second.feed(self._first.end()) + self._second.end()


def way(
    client: FormatName,
    upstream: FormatName,
    dialect: Dialect,
    *,
    place: Mapping[str, str] | None = None,
    model: str = "",
) -> Translation | None:
    """What a request has to go through; None: nothing, its bytes may go as they came.

    Raises:
        LookupError: there is no translation between the two.
    """
    inner = None
    if client != upstream:
        inner = translate(client, upstream)
        if inner is None:
            raise LookupError(f"{client} to {upstream}")
    if dialect and upstream == "chat":
        return Dialected(inner, dialect, place=place, model=model)
    return inner


__all__ = ["Dialected", "way"]
