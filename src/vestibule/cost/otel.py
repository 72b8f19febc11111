"""Spend in OpenTelemetry's words: the one mapping of our records to the GenAI conventions, and OTLP/JSON of it.

Rules it keeps:
1. Every name of the conventions stands in `CONVENTIONS` and nowhere else; a new generation is one more entry.
2. Token counts and money are integers on the wire too (`asInt`); only durations are, as the conventions ask, seconds.
3. Counts are the provider's. A request that was charged at its hold adds no tokens, only its cost.

Sources: OpenTelemetry semantic conventions 1.41 (gen-ai-metrics, gen-ai-spans) and semantic-conventions-genai
(gen-ai-token-metrics, client-inference); OTLP 1.5, JSON Protobuf encoding (ids are hex, 64-bit integers are strings).
No convention has a metric of cost: `vestibule.cost` counts nano-USD.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from vestibule import __version__
from vestibule.core.clock import parse_rfc3339
from vestibule.cost.spend import Spend

Value = str | int
TOKEN_BOUNDS = tuple(4**power for power in range(14))
SECOND_BOUNDS_MS = tuple(10 * 2**power for power in range(14))
"""Bounds of the conventions' histograms: tokens; durations, in milliseconds."""
CUMULATIVE, CLIENT, ERROR = 2, 3, 2
SPANS_PER_LINE = 500

PROVIDERS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "openai": "openai",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
}
"""Our shipped providers as the conventions name them; another keeps the operator's name."""


class Convention(NamedTuple):
    """One generation of the conventions. `counters` are (metric, the kind of tokens it counts)."""

    schema_url: str
    cache_write: str
    """Span attribute of tokens written to a cache."""
    duration: str
    first_chunk: str
    counters: tuple[tuple[str, str], ...]
    counter_attributes: Mapping[str, str]
    distributions: tuple[tuple[str, str, Mapping[str, str]], ...]
    """Histograms of tokens per request: (metric, kind, further attributes)."""


CONVENTIONS: Mapping[str, Convention] = {
    "1.41": Convention(
        schema_url="https://opentelemetry.io/schemas/1.41.0",
        cache_write="gen_ai.usage.cache_creation.input_tokens",
        duration="gen_ai.client.operation.duration",
        first_chunk="gen_ai.client.operation.time_to_first_chunk",
        counters=(),
        counter_attributes={},
        distributions=(
            ("gen_ai.client.token.usage", "input", {"gen_ai.token.type": "input"}),
            ("gen_ai.client.token.usage", "output", {"gen_ai.token.type": "output"}),
        ),
    ),
    "genai": Convention(
        schema_url="",
        cache_write="gen_ai.usage.cache_write.input_tokens",
        duration="gen_ai.client.inference.duration",
        first_chunk="gen_ai.client.inference.time_to_first_chunk",
        counters=(
            ("gen_ai.client.inference.usage.input_tokens", "input"),
            ("gen_ai.client.inference.usage.output_tokens", "output"),
            ("gen_ai.client.inference.usage.cache_read.input_tokens", "cache_read"),
            ("gen_ai.client.inference.usage.cache_write.input_tokens", "cache_write"),
        ),
        # Providers do not break their counts down, and a prompt may hold images.
        counter_attributes={"gen_ai.token.modality": "unknown"},
        distributions=(
            ("gen_ai.client.inference.operation.input_tokens", "input", {}),
            ("gen_ai.client.inference.operation.output_tokens", "output", {}),
        ),
    ),
}


def counted(spend: Spend) -> dict[str, int]:
    """Tokens as the conventions cut them: input and output are totals, the cache's are parts of input."""
    fresh, read, written, hour, output, _ = spend.tokens
    return {
        "input": fresh + read + written + hour,
        "output": output,
        "cache_read": read,
        "cache_write": written + hour,
    }


def metric_attributes(spend: Spend) -> dict[str, Value]:
    """What tells the points of a metric apart."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDERS.get(spend.provider, spend.provider),
        "gen_ai.request.model": spend.model,
        "gen_ai.agent.name": spend.agent,
        "gen_ai.agent.version": spend.agent_version,
    }


def span_attributes(spend: Spend, convention: Convention) -> dict[str, Value]:
    """Everything about one request."""
    found: dict[str, Value] = {
        **metric_attributes(spend),
        "gen_ai.conversation.id": spend.run,
        "vestibule.role": spend.role,
        "vestibule.repository": spend.repository,
        "vestibule.cost.nano_usd": spend.usage.cost_nano_usd,
        "vestibule.outcome": spend.state,
    }
    if spend.state != "charged":
        tokens = counted(spend)
        found["gen_ai.usage.input_tokens"] = tokens["input"]
        found["gen_ai.usage.output_tokens"] = tokens["output"]
        found["gen_ai.usage.cache_read.input_tokens"] = tokens["cache_read"]
        found[convention.cache_write] = tokens["cache_write"]
    return found


def metrics_request(spends: Iterable[Spend], convention: Convention, now: datetime) -> dict[str, Any]:
    """An `ExportMetricsServiceRequest` of all of them: cumulative since the first."""
    sums: dict[tuple[str, str], dict[_Point, int]] = {}
    distributions: dict[tuple[str, str], dict[_Point, _Buckets]] = {}
    start = ""
    for spend in spends:
        if spend.state == "held":
            continue
        start = min(start or spend.time, spend.time)
        base, tokens = metric_attributes(spend), counted(spend)
        point = _point(base)
        _sum(sums, ("vestibule.cost", "{nano_usd}"), point, spend.usage.cost_nano_usd)
        for name, kind in convention.counters:
            _sum(sums, (name, "{token}"), _point(base, convention.counter_attributes), tokens[kind])
        if spend.state != "charged":
            for name, kind, more in convention.distributions:
                points = distributions.setdefault((name, "{token}"), {})
                points.setdefault(_point(base, more), _Buckets(TOKEN_BOUNDS)).add(tokens[kind])
        for name, value in ((convention.duration, spend.milliseconds), (convention.first_chunk, spend.first_byte_ms)):
            if value is not None:
                seconds = distributions.setdefault((name, "s"), {})
                seconds.setdefault(point, _Buckets(SECOND_BOUNDS_MS)).add(value)
    times = {"startTimeUnixNano": _nanos(start) if start else "0", "timeUnixNano": _nano_text(now)}
    metrics: list[dict[str, Any]] = [
        {
            "name": name,
            "unit": unit,
            "sum": {
                "aggregationTemporality": CUMULATIVE,
                "isMonotonic": True,
                "dataPoints": [
                    {"attributes": _attributes(dict(point)), **times, "asInt": str(value)}
                    for point, value in sorted(points.items())
                ],
            },
        }
        for (name, unit), points in sorted(sums.items())
    ]
    metrics += [
        {
            "name": name,
            "unit": unit,
            "histogram": {
                "aggregationTemporality": CUMULATIVE,
                "dataPoints": [
                    {"attributes": _attributes(dict(point)), **times, **buckets.as_json(unit == "s")}
                    for point, buckets in sorted(points.items(), key=lambda item: item[0])
                ],
            },
        }
        for (name, unit), points in sorted(distributions.items())
    ]
    return {
        "resourceMetrics": [
            {**_resource(), "scopeMetrics": [{"scope": _SCOPE, "metrics": metrics, **_url(convention)}]}
        ]
    }


def span_requests(spends: Iterable[Spend], convention: Convention) -> Iterator[dict[str, Any]]:
    """`ExportTraceServiceRequest`s, a span for each request of closed books; a run's requests share a trace."""
    batch: list[dict[str, Any]] = []
    for spend in spends:
        if spend.state == "held":
            continue
        batch.append(_span(spend, convention))
        if len(batch) == SPANS_PER_LINE:
            yield _spans(batch, convention)
            batch = []
    if batch:
        yield _spans(batch, convention)


def _span(spend: Spend, convention: Convention) -> dict[str, Any]:
    start = int(_nanos(spend.time))
    failed = {"status": {"code": ERROR, "message": "the provider told no usage"}} if spend.state == "charged" else {}
    return {
        "traceId": hashlib.sha256(spend.run.encode()).hexdigest()[:32],
        "spanId": hashlib.sha256(spend.id.encode()).hexdigest()[:16],
        "name": f"chat {spend.model}",
        "kind": CLIENT,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + (spend.milliseconds or 0) * 1_000_000),
        "attributes": _attributes(span_attributes(spend, convention)),
        **failed,
    }


def _spans(batch: list[dict[str, Any]], convention: Convention) -> dict[str, Any]:
    return {"resourceSpans": [{**_resource(), "scopeSpans": [{"scope": _SCOPE, "spans": batch, **_url(convention)}]}]}


class _Buckets:
    """A histogram of integers."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0

    def add(self, value: int) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def as_json(self, milliseconds: bool) -> dict[str, Any]:
        scale = 1000 if milliseconds else 1
        return {
            "count": str(sum(self._counts)),
            "sum": self._total / scale,
            "bucketCounts": [str(count) for count in self._counts],
            "explicitBounds": [bound / scale for bound in self._bounds],
        }


_Point = tuple[tuple[str, Value], ...]
_SCOPE = {"name": "vestibule", "version": __version__}


def _point(base: Mapping[str, Value], more: Mapping[str, str] | None = None) -> _Point:
    return tuple(sorted({**base, **(more or {})}.items()))


def _sum(sums: dict[tuple[str, str], dict[_Point, int]], name: tuple[str, str], point: _Point, value: int) -> None:
    points = sums.setdefault(name, {})
    points[point] = points.get(point, 0) + value


def _attributes(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]


def _resource() -> dict[str, Any]:
    return {"resource": {"attributes": _attributes({"service.name": "vestibule", "service.version": __version__})}}


def _url(convention: Convention) -> dict[str, str]:
    return {"schemaUrl": convention.schema_url} if convention.schema_url else {}


def _nanos(time: str) -> str:
    return _nano_text(parse_rfc3339(time))


def _nano_text(moment: datetime) -> str:
    milliseconds = round(moment.timestamp() * 1000)
    return str(milliseconds * 1_000_000)


__all__ = ["CONVENTIONS", "Convention", "counted", "metrics_request", "span_attributes", "span_requests"]
