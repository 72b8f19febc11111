"""The scripted provider's Gemini generateContent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vestibule.boundary.models.scripted.talk import MARK, Offer, Reply, Talk, pieces, seed_of, size_of

_PATH = re.compile(r"/v1(?:beta)?/models/([^/:]+):(generateContent|streamGenerateContent|countTokens)\Z")
_SIGNATURE = "c2NyaXB0ZWQ="
"""What stands for the signature of a thought: clients have to send it back with the call."""
_STATUS = {401: "UNAUTHENTICATED", 404: "NOT_FOUND"}


@dataclass(frozen=True, slots=True)
class GeminiTalk(Talk):
    """`counting`: only the tokens were asked for."""

    counting: bool = False


class GeminiRenderer:
    """`POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent?alt=sse`, `:countTokens`."""

    def serves(self, path: str) -> bool:
        return _PATH.match(path) is not None

    def talk(self, path: str, request: dict[str, Any]) -> Talk:
        found = _PATH.match(path)
        model, method = found.groups() if found else ("", "")
        request = request.get("generateContentRequest") or request
        contents = request["contents"]
        own = [item for item in contents if item.get("role") == "model"]
        last = max((i for i, item in enumerate(contents) if item.get("role") == "model"), default=-1)
        around = [request.get("systemInstruction"), request.get("tools")]
        declared = (item for tool in request.get("tools") or () for item in tool.get("functionDeclarations") or ())
        return GeminiTalk(
            model=model,
            stream=method == "streamGenerateContent",
            prompt=_prompt(contents),
            # Programs join texts that follow one another: a refusal may stand within one.
            answers=len(own) + sum(_text(item).count(MARK) for item in own),
            last_result=_last_result(contents),
            offered=tuple(Offer(item["name"]) for item in declared),
            seed=seed_of(contents),
            # Caches are the provider's own doing here: nobody marks them.
            cached=last >= 0,
            history_bytes=size_of([contents[:last], *around]) if last >= 0 else 0,
            total_bytes=size_of([contents, *around]),
            counting=method == "countTokens",
        )

    def whole(self, reply: Reply) -> dict[str, Any]:
        if isinstance(reply.talk, GeminiTalk) and reply.talk.counting:
            return {"totalTokens": _prompt_tokens(reply)}
        parts: list[dict[str, Any]] = [{"text": reply.text}] if reply.text else []
        return _chunk(reply, [*parts, *_calls(reply)], "STOP")

    def events(self, reply: Reply) -> Iterator[tuple[bytes, bool]]:
        for piece in pieces(reply.text):
            yield _event(_chunk(reply, [{"text": piece}])), True
        if calls := _calls(reply):
            yield _event(_chunk(reply, calls)), True
        yield _event(_chunk(reply, [{"text": ""}], "STOP")), False

    def error(self, status: int, message: str) -> bytes:
        found = {"code": status, "message": message, "status": _STATUS.get(status, "INVALID_ARGUMENT")}
        return json.dumps({"error": found}).encode()


def _chunk(reply: Reply, parts: list[dict[str, Any]], reason: str = "") -> dict[str, Any]:
    prompt, output = _prompt_tokens(reply), reply.usage.output_tokens
    usage = {"promptTokenCount": prompt, "totalTokenCount": prompt}
    if reply.usage.cache_read_input_tokens:
        usage["cachedContentTokenCount"] = reply.usage.cache_read_input_tokens
    if reason:
        usage |= {"candidatesTokenCount": output, "totalTokenCount": prompt + output}
    ending = {"finishReason": reason} if reason else {}
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, **ending, "index": 0}],
        "usageMetadata": usage,
        "modelVersion": reply.talk.model,
        "responseId": f"scripted{reply.id}",
    }


def _prompt_tokens(reply: Reply) -> int:
    usage = reply.usage
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "functionCall": {"id": call.id, "name": call.name, "args": call.input},
            **({} if number else {"thoughtSignature": _SIGNATURE}),
        }
        for number, call in enumerate(reply.calls)
    ]


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\r\n\r\n".encode()


def _prompt(contents: list[dict[str, Any]]) -> str:
    # All turns up to the first answer: programs put their surroundings before the prompt.
    prompt = ""
    for item in contents:
        if item.get("role") == "model":
            break
        prompt += _text(item)
    return prompt


def _last_result(contents: list[dict[str, Any]]) -> str:
    for item in reversed(contents):
        results = [part["functionResponse"] for part in item.get("parts") or () if "functionResponse" in part]
        if results:
            return "\n".join(_said(result.get("response")) for result in results)
    return ""


def _said(value: Any) -> str:
    """All strings within, in their order."""
    if isinstance(value, str):
        return value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "\n".join(_said(item) for item in items)


def _text(item: dict[str, Any]) -> str:
    return "\n".join(part.get("text") or "" for part in item.get("parts") or ())
