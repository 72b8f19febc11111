"""The conformance fixtures that need the SDK's sessions, streams and requests to the client: a surface.

Rule it keeps: nothing but lists runs without a `Cleared`, so the SDK is no way around the decision here either.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mcp_types as t
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from tests.conformance.fixtures import DENIED_PROMPT, DENIED_URI, Role
from vestibule.boundary.context.catalogue import Tool
from vestibule.boundary.context.cleared import Undecided, take_from
from vestibule.boundary.context.rules import Call
from vestibule.boundary.context.sdk import Endpoint
from vestibule.boundary.context.tools import Answer

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
AUDIO = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
METHODS = (
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
)
"""Decided like tools. The resources and prompts that the role has are named besides."""
NAMED = {"resources/read": "uri", "prompts/get": "name"}

Body = Callable[[Any, t.CallToolRequestParams], Awaitable[t.CallToolResult | t.InputRequiredResult]]


def text(words: str) -> t.CallToolResult:
    return t.CallToolResult(content=[t.TextContent(type="text", text=words)])


def document(uri: str, words: str, kind: str = "text/plain") -> t.EmbeddedResource:
    return t.EmbeddedResource(type="resource", resource=t.TextResourceContents(uri=uri, mime_type=kind, text=words))


# content


async def image(_: Any, __: t.CallToolRequestParams) -> t.CallToolResult:
    return t.CallToolResult(content=[t.ImageContent(type="image", data=IMAGE, mime_type="image/png")])


async def audio(_: Any, __: t.CallToolRequestParams) -> t.CallToolResult:
    return t.CallToolResult(content=[t.AudioContent(type="audio", data=AUDIO, mime_type="audio/wav")])


async def embedded(_: Any, __: t.CallToolRequestParams) -> t.CallToolResult:
    return t.CallToolResult(content=[document("test://embedded-resource", "This is an embedded resource content.")])


async def mixed(_: Any, __: t.CallToolRequestParams) -> t.CallToolResult:
    return t.CallToolResult(
        content=[
            t.TextContent(type="text", text="Multiple content types test:"),
            t.ImageContent(type="image", data=IMAGE, mime_type="image/png"),
            document("test://mixed-content-resource", '{"test": "data", "value": 123}', "application/json"),
        ]
    )


# streams and requests to the client (2025-11-25)


async def logging(context: Any, _: t.CallToolRequestParams) -> t.CallToolResult:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message(level="info", data=words, related_request_id=context.request_id)
    return text("Tool with logging executed successfully")


async def progress(context: Any, _: t.CallToolRequestParams) -> t.CallToolResult:
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100, f"Completed step {done} of 100")
    return text("done")


async def sampling(context: Any, params: t.CallToolRequestParams) -> t.CallToolResult:
    found = await context.session.create_message(
        messages=[said((params.arguments or {})["prompt"])], max_tokens=100, related_request_id=context.request_id
    )
    return text(f"LLM response: {found.content.text}")


async def elicited(context: Any, message: str, schema: dict[str, Any], begin: str) -> t.CallToolResult:
    found = await context.session.elicit_form(message, schema, related_request_id=context.request_id)
    return text(f"{begin}: action={found.action}, content={json.dumps(found.content or {})}")


async def elicitation(context: Any, params: t.CallToolRequestParams) -> t.CallToolResult:
    schema = form({"response": {"type": "string", "description": "User's response"}}, ["response"])
    return await elicited(context, (params.arguments or {})["message"], schema, "User response")


async def defaults(context: Any, _: t.CallToolRequestParams) -> t.CallToolResult:
    schema = form(
        {
            "name": {"type": "string", "description": "User name", "default": "John Doe"},
            "age": {"type": "integer", "description": "User age", "default": 30},
            "score": {"type": "number", "description": "User score", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "description": "Verification status", "default": True},
        },
        [],
    )
    return await elicited(context, "Please provide user information", schema, "Elicitation completed")


async def enums(context: Any, _: t.CallToolRequestParams) -> t.CallToolResult:
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)]
    schema = form(
        {
            "untitledSingle": {"type": "string", "enum": plain},
            "titledSingle": {"type": "string", "oneOf": titled},
            "legacyEnum": {"type": "string", "enum": plain, "enumNames": ["One", "Two", "Three"]},
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled}},
        },
        [],
    )
    return await elicited(context, "Please select options", schema, "Elicitation completed")


async def missing_capability(context: Any, _: t.CallToolRequestParams) -> t.CallToolResult:
    declared = context.session.client_capabilities
    if declared is None or declared.sampling is None:
        raise MCPError(
            code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            message="This tool requires the client's sampling capability",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return text("The client declared sampling.")


# input that a result asks for (2026-07-28)


def form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def said(words: str) -> t.SamplingMessage:
    return t.SamplingMessage(role="user", content=t.TextContent(type="text", text=words))


def ask(message: str, field: str = "name", kind: str = "string") -> t.ElicitRequest:
    schema = form({field: {"type": kind}}, [field])
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(words: str) -> t.CreateMessageRequest:
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(messages=[said(words)], max_tokens=100))


def need(state: str | None = None, **requests: Any) -> t.InputRequiredResult:
    return t.InputRequiredResult(input_requests=requests, request_state=state)


def content(answer: Any, field: str) -> Any:
    return (answer.content or {}).get(field) if isinstance(answer, t.ElicitResult) else None


async def asks_name(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    name = content((params.input_responses or {}).get("user_name"), "name")
    return text(f"Hello, {name}!") if isinstance(name, str) else need(user_name=ask("What is your name?"))


async def asks_model(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    answer = (params.input_responses or {}).get("capital_question")
    if isinstance(answer, t.CreateMessageResult) and isinstance(answer.content, t.TextContent):
        return text(f"Model said: {answer.content.text}")
    return need(capital_question=sample("What is the capital of France?"))


async def asks_roots(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    answer = (params.input_responses or {}).get("client_roots")
    if isinstance(answer, t.ListRootsResult):
        return text(f"Client exposed {len(answer.roots)} root(s).")
    return need(client_roots=t.ListRootsRequest())


async def asks_confirmation(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    if params.request_state == "nonce" and "confirm" in (params.input_responses or {}):
        return text("state-ok: confirmation received")
    return need("nonce", confirm=ask("Please confirm", "ok", "boolean"))


async def asks_all(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    if {"user_name", "greeting", "client_roots"} <= (params.input_responses or {}).keys():
        return text("All inputs received.")
    roots = t.ListRootsRequest()
    return need("all", user_name=ask("What is your name?"), greeting=sample("Generate a greeting"), client_roots=roots)


async def asks_twice(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    state = json.loads(params.request_state) if params.request_state else {"round": 0}
    answers = params.input_responses or {}
    if state["round"] == 1 and "step1" in answers:
        name = content(answers["step1"], "name")
        question = ask("Step 2: What is your favorite color?", "color")
        return need(json.dumps({"round": 2, "name": name}), step2=question)
    if state["round"] == 2 and "step2" in answers:
        return text(f"{state['name']} likes {content(answers['step2'], 'color')}.")
    return need(json.dumps({"round": 1}), step1=ask("Step 1: What is your name?"))


async def sealed_state(_: Any, params: t.CallToolRequestParams) -> t.CallToolResult | t.InputRequiredResult:
    if params.request_state is None:
        return need("round-1", confirm=ask("Please confirm", "ok", "boolean"))
    return text(f"state-ok: {params.request_state}")


async def asks_what_is_declared(context: Any, _: t.CallToolRequestParams) -> t.InputRequiredResult:
    declared = context.session.client_capabilities
    requests: dict[str, Any] = {}
    if declared is not None and declared.sampling is not None:
        requests["sample"] = sample("Say hello")
    if declared is not None and declared.elicitation is not None:
        requests["ask"] = ask("What is your name?")
    return need("declared", **requests)


_ONE = {"type": "object", "properties": {"prompt": {"type": "string"}, "message": {"type": "string"}}}
BODIES: dict[str, Body] = {
    "test_image_content": image,
    "test_audio_content": audio,
    "test_embedded_resource": embedded,
    "test_multiple_content_types": mixed,
    "test_tool_with_logging": logging,
    "test_tool_with_progress": progress,
    "test_sampling": sampling,
    "test_elicitation": elicitation,
    "test_elicitation_sep1034_defaults": defaults,
    "test_elicitation_sep1330_enums": enums,
    "test_missing_capability": missing_capability,
    "test_input_required_result_elicitation": asks_name,
    "test_input_required_result_sampling": asks_model,
    "test_input_required_result_list_roots": asks_roots,
    "test_input_required_result_request_state": asks_confirmation,
    "test_input_required_result_multiple_inputs": asks_all,
    "test_input_required_result_multi_round": asks_twice,
    "test_input_required_result_tampered_state": sealed_state,
    "test_input_required_result_capabilities": asks_what_is_declared,
}

# resources and prompts

RESOURCES = ("test://static-text", "test://static-binary", "test://watched-resource", DENIED_URI)
TEMPLATE = "test://template/{id}/data"
PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
    DENIED_PROMPT: (),
}
HINT: dict[str, Any] = {"ttl_ms": 0, "cache_scope": "private"}


async def list_resources(_: Any, __: Any) -> t.ListResourcesResult:
    found = [t.Resource(uri=uri, name=uri.partition("//")[2], mime_type="text/plain") for uri in RESOURCES]
    return t.ListResourcesResult(resources=found, **HINT)


async def list_templates(_: Any, __: Any) -> t.ListResourceTemplatesResult:
    found = [t.ResourceTemplate(uri_template=TEMPLATE, name="template", mime_type="application/json")]
    return t.ListResourceTemplatesResult(resource_templates=found, **HINT)


async def read_resource(_: Any, params: t.ReadResourceRequestParams) -> t.ReadResourceResult:
    uri = str(params.uri)
    contents: t.TextResourceContents | t.BlobResourceContents
    if uri == "test://static-binary":
        contents = t.BlobResourceContents(uri=uri, mime_type="image/png", blob=IMAGE)
    elif uri.startswith("test://template/"):
        number = uri.split("/")[3]
        words = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        contents = t.TextResourceContents(uri=uri, mime_type="application/json", text=words)
    elif uri in RESOURCES:
        words = "This is the content of the static text resource."
        contents = t.TextResourceContents(uri=uri, mime_type="text/plain", text=words)
    else:
        raise MCPError(code=t.INVALID_PARAMS, message="Resource not found", data={"uri": uri})
    return t.ReadResourceResult(contents=[contents], **HINT)


async def list_prompts(_: Any, __: Any) -> t.ListPromptsResult:
    found = [
        t.Prompt(
            name=name,
            description=f"The fixture {name}",
            arguments=[t.PromptArgument(name=item, description=item, required=True) for item in arguments],
        )
        for name, arguments in PROMPTS.items()
    ]
    return t.ListPromptsResult(prompts=found, **HINT)


async def get_prompt(_: Any, params: t.GetPromptRequestParams) -> t.GetPromptResult | t.InputRequiredResult:
    given = params.arguments or {}
    blocks: list[Any] = [t.TextContent(type="text", text="This is a simple prompt for testing.")]
    if params.name == "test_prompt_with_arguments":
        words = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
        blocks = [t.TextContent(type="text", text=words)]
    elif params.name == "test_prompt_with_embedded_resource":
        asked = t.TextContent(type="text", text="Please process the embedded resource above.")
        blocks = [document(given["resourceUri"], "Embedded resource content for testing."), asked]
    elif params.name == "test_prompt_with_image":
        asked = t.TextContent(type="text", text="Please analyze the image above.")
        blocks = [t.ImageContent(type="image", data=IMAGE, mime_type="image/png"), asked]
    elif params.name == "test_input_required_result_prompt":
        words = content((params.input_responses or {}).get("user_context"), "context")
        if words is None:
            return need(user_context=ask("What context should the prompt use?", "context"))
        blocks = [t.TextContent(type="text", text=f"Use the following context: {words}")]
    return t.GetPromptResult(messages=[t.PromptMessage(role="user", content=block) for block in blocks])


async def nothing(_: Any, __: Any) -> t.EmptyResult:
    return t.EmptyResult()


async def complete(_: Any, __: Any) -> t.CompleteResult:
    return t.CompleteResult(completion=t.Completion(values=[], total=0, has_more=False))


class Everything:
    """The surface: plans by the role's names, and brings the SDK's server with sessions and streams."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def tools(self) -> Sequence[Tool]:
        return [Tool(name, f"The fixture {name}.", _ONE, read_only=True) for name in BODIES]

    def plan(self, name: str, arguments: Mapping[str, Any]) -> Call | None:
        return self._role.call(name, arguments, self) if name in BODIES else None

    def carry_out(self, call: Call) -> Answer:
        raise Undecided(call.tool)  # its tools run in the SDK, with the context of their request

    def plan_method(self, method: str, params: Mapping[str, Any]) -> Call | None:
        if method != "client/answer" and method not in METHODS:
            return None
        shown = f"{method} {params.get(NAMED[method])}" if method in NAMED else method
        return self._role.call(method, {}, self, shown=shown)

    def server(self, tools: tuple[Tool, ...], *, body_bytes: int) -> SessionEndpoint:
        return SessionEndpoint(tools, body_bytes=body_bytes)


class SessionEndpoint(Endpoint):
    """The endpoint's own server with more handlers; sessions for the older revision, streams for both."""

    def __init__(self, tools: tuple[Tool, ...], *, body_bytes: int) -> None:
        super().__init__(tools, body_bytes=body_bytes)
        add = self.server.add_request_handler
        own = self.server.get_request_handler("tools/call")
        assert own is not None
        self._call_tool: Any = own.handler
        add("tools/call", t.CallToolRequestParams, self._call)
        add("resources/list", t.PaginatedRequestParams, list_resources)
        add("resources/templates/list", t.PaginatedRequestParams, list_templates)
        add("resources/read", t.ReadResourceRequestParams, read_resource)
        add("resources/subscribe", t.SubscribeRequestParams, nothing)
        add("resources/unsubscribe", t.UnsubscribeRequestParams, nothing)
        add("prompts/list", t.PaginatedRequestParams, list_prompts)
        add("prompts/get", t.GetPromptRequestParams, get_prompt)
        add("completion/complete", t.CompleteRequestParams, complete)
        add("logging/setLevel", t.SetLevelRequestParams, nothing)
        security = RequestStateSecurity(keys=[secrets.token_bytes(32)])
        self.server.middleware.extend([_decided, RequestStateBoundary(security, default_audience="vestibule")])
        self._manager: StreamableHTTPSessionManager | None = None
        self._task: asyncio.Task[None] | None = None

    async def _call(self, context: Any, params: t.CallToolRequestParams) -> Any:
        body = BODIES.get(params.name)
        if body is None:
            return await self._call_tool(context, params)
        run = partial(body, context, params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            return await take_from(context.request.scope).take_with(params.name, params.arguments or {}, run)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        if self._manager is None:
            self._manager = StreamableHTTPSessionManager(self.server, max_request_body_size=self.body_bytes)
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._manager, ready))
            self._ready = ready
        await self._ready
        await self._manager.handle_request(scope, receive, send)

    @staticmethod
    async def _run(manager: StreamableHTTPSessionManager, ready: asyncio.Future[None]) -> None:
        async with manager.run():
            ready.set_result(None)
            await asyncio.Event().wait()


async def _decided(ctx: Any, call_next: Any) -> Any:
    """Outermost in the SDK: what is decided beside tools runs with the proof that it was."""
    if ctx.method not in METHODS:
        return await call_next(ctx)
    return await take_from(ctx.request.scope).take_with(ctx.method, {}, partial(call_next, ctx))
