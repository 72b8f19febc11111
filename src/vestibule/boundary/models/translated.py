"""A provider's answer in the client's format: what is read from the connection goes through the request's translation.

Rules it keeps:
1. Everything behind it (answer machine, usage, heartbeats, error shapes) sees the client's format only.
2. A whole answer is bounded while it is gathered; a stream is translated as it comes, and never waits for its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from vestibule.boundary.models.http1 import Answer, BrokenAnswer
from vestibule.boundary.models.translate import Translation

MAX_WHOLE = 64 * 1024 * 1024


class Translated(Answer):
    """`answer`, read through `way`."""

    __slots__ = ("_begun", "_inner", "_way")

    def __init__(self, answer: Answer, way: Translation) -> None:
        super().__init__(answer._connection, answer.status, answer.headers)
        self._inner = answer
        self._way = way
        self._begun = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in the client's format. Raises `BrokenAnswer`; `WireError`: it is no answer."""
        if self._begun:
            # Behind the last event: only whether the connection's body is over matters.
            async for chunk in self._inner.chunks():
                yield chunk
            return
        self._begun = True
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.status == 200 and kind == "text/event-stream":
            stream = self._way.stream()
            async for chunk in self._inner.chunks():
                if out := stream.feed(chunk):
                    yield out
            if out := stream.end():
                yield out
            return
        gathered = bytearray()
        async for chunk in self._inner.chunks():
            gathered += chunk
            if len(gathered) > MAX_WHOLE:
                raise BrokenAnswer("its answer is too large")
        body = bytes(gathered)
        yield self._way.whole(body) if self.status == 200 else self._way.error(self.status, body)
