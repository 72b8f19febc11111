"""Scenarios of the hold matrix as Gemini generateContent, read with the official SDK."""

from __future__ import annotations

import json
from typing import Any

from google import genai
from google.genai import errors, types
from hold_matrix import INPUT_TOKENS, OUTPUT_TOKENS, TOOLS, Part, Reading, Scenario
from models_house import MODEL, House

from vestibule.boundary.models.formats.base import FormatName

CACHED, THOUGHTS = 12, 4
SIGNATURE = "c2lnbmVk"


def sdk(token: str, url: str, **more: Any) -> genai.Client:
    """The official client, without retries."""
    options = types.HttpOptions(base_url=url, timeout=20_000, **more)
    return genai.Client(api_key=token, http_options=options)


def usage(output: int = 0, **more: int) -> str:
    found: dict[str, int] = {"promptTokenCount": INPUT_TOKENS, **more}
    if output:
        found |= {"candidatesTokenCount": output - THOUGHTS, "thoughtsTokenCount": THOUGHTS}
    return json.dumps({**found, "totalTokenCount": INPUT_TOKENS + output})


def content(*parts: str, reason: str = "", counted: str = "", index: int = 0) -> str:
    """One answer object. `parts` are JSON."""
    ending = f', "finishReason": "{reason}"' if reason else ""
    body = f'{{"content": {{"parts": [{", ".join(parts)}], "role": "model"}}{ending}, "index": {index}}}'
    return f'{{"candidates": [{body}], "usageMetadata": {counted or usage()}, "modelVersion": "{MODEL}"}}'


def event(value: str) -> bytes:
    return b"data: " + value.encode() + b"\r\n\r\n"


def text(words: str) -> str:
    return json.dumps({"text": words})


def thought(words: str) -> str:
    return json.dumps({"text": words, "thought": True})


def call(name: str, arguments: str, *, key: str = "", signature: str = "") -> str:
    head = f'"id": "{key}", ' if key else ""
    tail = f', "thoughtSignature": "{signature}"' if signature else ""
    return f'{{"functionCall": {{{head}"name": "{name}", "args": {arguments}}}{tail}}}'


def part_of(part: Part, number: int) -> str:
    if part.kind == "text":
        return text(part.text)
    return call(part.name, part.arguments, key=f"call_{number}", signature=SIGNATURE)


class GeminiWire:
    """The format `gemini`, for the matrix."""

    format: FormatName = "gemini"
    prefix = "/gemini"

    def stream(self, scenario: Scenario) -> bytes | None:
        if scenario.ending == "cut":
            return None  # arguments are an object: they cannot be half
        parts = [part_of(part, number) for number, part in enumerate(scenario.parts)]
        last = content(text(""), reason="STOP", counted=usage(OUTPUT_TOKENS))
        if scenario.interleaved:
            # All in one chunk, with texts between them, and the reason with them.
            mixed = [item for part in parts for item in (part, text("."))]
            return event(content(*mixed, reason="STOP", counted=usage(OUTPUT_TOKENS)))
        data = event(content(thought("Hm."))) + b"".join(event(content(part)) for part in parts[:-1])
        if scenario.ending == "dies":
            return data + event(content(parts[-1]))[: -len(parts[-1]) // 4]
        return data + event(content(parts[-1])) + event(last)

    def whole(self, scenario: Scenario) -> bytes | None:
        if scenario.ending == "cut":
            return None
        parts = [part_of(part, number) for number, part in enumerate(scenario.parts)]
        return content(*parts, reason="STOP", counted=usage(OUTPUT_TOKENS)).encode()

    def read(self, house: House, url: str, *, stream: bool) -> Reading:
        declared = [
            types.FunctionDeclaration(name=name, description=name, parameters_json_schema=schema)
            for name, schema in TOOLS.items()
        ]
        config = types.GenerateContentConfig(
            max_output_tokens=100,
            tools=[types.Tool(function_declarations=declared)],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        client = sdk(house.token, url)
        found: list[types.GenerateContentResponse] = []
        try:
            if stream:
                for chunk in client.models.generate_content_stream(model=MODEL, contents="go", config=config):
                    found.append(chunk)
            else:
                found.append(client.models.generate_content(model=MODEL, contents="go", config=config))
        except (errors.APIError, ValueError) as error:
            return reading(found, error)
        return reading(found, None)

    def stops(self, reading: Reading, scenario: Scenario) -> bool:
        return reading.stop == "STOP"


def reading(found: list[types.GenerateContentResponse], error: BaseException | None) -> Reading:
    words, calls, stop, output = "", [], "", 0
    for answer in found:
        for candidate in answer.candidates or ():
            assert not stop or error, "something came after the end"
            for part in (candidate.content and candidate.content.parts) or ():
                words += (part.text or "") if not part.thought else ""
                if part.function_call is not None:
                    calls.append((part.function_call.name or "", part.function_call.args))
                    assert part.thought_signature == b"signed"
            stop = candidate.finish_reason.value if candidate.finish_reason else stop
        if answer.usage_metadata is not None:
            counted = answer.usage_metadata
            output = (counted.candidates_token_count or 0) + (counted.thoughts_token_count or 0)
    return Reading(words, tuple(calls), stop, error, output)
