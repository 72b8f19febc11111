"""OpenTelemetry's own definitions read what we write, in both generations of the GenAI conventions."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from spend_books import VERSION, Books

from vestibule.cost import otel
from vestibule.cost.otel import CONVENTIONS, metrics_request, span_requests
from vestibule.cost.spend import read_spends

NOW = datetime(2026, 1, 3, tzinfo=UTC)


def plain(attributes: Any) -> dict[str, str | int]:
    def value(item: KeyValue) -> str | int:
        return item.value.int_value if item.value.HasField("int_value") else item.value.string_value

    return {item.key: value(item) for item in attributes}


def metrics(books: Books, generation: str) -> dict[str, Any]:
    written = json.dumps(metrics_request(read_spends(books.db), CONVENTIONS[generation], NOW))
    parsed = json_format.Parse(written, ExportMetricsServiceRequest())
    (resource,) = parsed.resource_metrics
    assert plain(resource.resource.attributes)["service.name"] == "vestibule"
    (scope,) = resource.scope_metrics
    assert len({metric.name for metric in scope.metrics}) == len(scope.metrics)
    return {metric.name: metric for metric in scope.metrics}


def spans(books: Books, generation: str) -> list[Any]:
    """Parsed spans. OTLP's ids are hex where Protobuf's own JSON has base64."""
    found = []
    for request in span_requests(read_spends(books.db), CONVENTIONS[generation]):
        for resource in request["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    for name, size in (("traceId", 16), ("spanId", 8)):
                        raw = bytes.fromhex(span[name])
                        assert len(raw) == size
                        span[name] = base64.b64encode(raw).decode()
        parsed = json_format.Parse(json.dumps(request), ExportTraceServiceRequest())
        found += [span for resource in parsed.resource_spans for scope in resource.scope_spans for span in scope.spans]
    return found


@pytest.fixture
def books(tmp_path: Path) -> Books:
    made = Books.new(tmp_path)
    made.spend(cost=1_000_000_001)
    made.spend("r2", cost=2, provider="watsonx", model="granite-4")
    return made


def test_the_newer_generation_counts_tokens_with_the_caches_as_parts_of_input(books: Books) -> None:
    found = metrics(books, "genai")
    name = "gen_ai.client.inference.usage."
    wanted = {
        "input_tokens": 1350,
        "output_tokens": 200,
        "cache_read.input_tokens": 300,
        "cache_write.input_tokens": 50,
    }
    for kind, number in wanted.items():
        metric = found[name + kind]
        assert metric.unit == "{token}"
        assert metric.sum.is_monotonic
        assert metric.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        points = {plain(point.attributes)["gen_ai.provider.name"]: point for point in metric.sum.data_points}
        assert set(points) == {"anthropic", "ibm.watsonx.ai"}
        point = points["anthropic"]
        assert point.as_int == number
        attributes = plain(point.attributes)
        assert attributes == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-5",
            "gen_ai.agent.name": "claude",
            "gen_ai.agent.version": VERSION,
            "gen_ai.token.modality": "unknown",
        }
        assert point.start_time_unix_nano == 1767323045678 * 10**6
        assert point.time_unix_nano == 1767398400 * 10**9
    assert "gen_ai.client.token.usage" not in found


def test_the_older_generation_has_one_histogram_by_type(books: Books) -> None:
    found = metrics(books, "1.41")
    metric = found["gen_ai.client.token.usage"]
    points = {
        plain(point.attributes)["gen_ai.token.type"]: point
        for point in metric.histogram.data_points
        if plain(point.attributes)["gen_ai.provider.name"] == "anthropic"
    }
    assert (points["input"].count, points["input"].sum) == (1, 1350)
    assert (points["output"].count, points["output"].sum) == (1, 200)
    assert len(points["input"].bucket_counts) == len(points["input"].explicit_bounds) + 1
    assert points["input"].explicit_bounds[:3] == [1, 4, 16]
    assert points["input"].explicit_bounds[-1] == 67108864
    assert not any(name.startswith("gen_ai.client.inference") for name in found)


@pytest.mark.parametrize(
    ("generation", "name"),
    [("1.41", "gen_ai.client.operation.duration"), ("genai", "gen_ai.client.inference.duration")],
)
def test_durations_are_seconds(books: Books, generation: str, name: str) -> None:
    metric = metrics(books, generation)[name]
    assert metric.unit == "s"
    assert sum(point.sum for point in metric.histogram.data_points) == 3.0
    assert metric.histogram.data_points[0].explicit_bounds[0] == 0.01


@pytest.mark.parametrize("generation", sorted(CONVENTIONS))
def test_cost_is_an_integer_of_nano_dollars(books: Books, generation: str) -> None:
    metric = metrics(books, generation)["vestibule.cost"]
    assert metric.unit == "{nano_usd}"
    assert sum(point.as_int for point in metric.sum.data_points) == 1_000_000_003


@pytest.mark.parametrize(
    ("generation", "written"),
    [("1.41", "gen_ai.usage.cache_creation.input_tokens"), ("genai", "gen_ai.usage.cache_write.input_tokens")],
)
def test_a_span_says_what_a_request_used(books: Books, generation: str, written: str) -> None:
    first, second = spans(books, generation)
    assert first.name == "chat claude-sonnet-5"
    assert first.kind == Span.SpanKind.SPAN_KIND_CLIENT
    assert first.end_time_unix_nano - first.start_time_unix_nano == 1_500_000_000
    assert first.trace_id != second.trace_id, "a trace is a run"
    attributes = plain(first.attributes)
    assert attributes["gen_ai.usage.input_tokens"] == 1350
    assert attributes["gen_ai.usage.output_tokens"] == 200
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 300
    assert attributes[written] == 50
    assert attributes["gen_ai.conversation.id"] == "r1"
    assert attributes["vestibule.cost.nano_usd"] == 1_000_000_001
    other = {"gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens"} - {written}
    assert not other & set(attributes)


def test_a_charged_request_has_a_cost_and_no_tokens(tmp_path: Path) -> None:
    books = Books.new(tmp_path)
    books.charge(nano_usd=7)
    books.hold()
    (span,) = spans(books, "genai")
    assert span.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert not any(name.startswith("gen_ai.usage") for name in plain(span.attributes))
    found = metrics(books, "genai")
    (point,) = found["gen_ai.client.inference.usage.input_tokens"].sum.data_points
    assert point.as_int == 0
    assert "gen_ai.client.inference.operation.input_tokens" not in found
    assert found["vestibule.cost"].sum.data_points[0].as_int == 7


def test_many_spans_are_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "SPANS_PER_LINE", 2)
    books = Books.new(tmp_path)
    for _ in range(5):
        books.spend()
    assert len(list(span_requests(read_spends(books.db), CONVENTIONS["1.41"]))) == 3
    found = spans(books, "1.41")
    assert len({span.span_id for span in found}) == 5
    assert len({span.trace_id for span in found}) == 1


def test_nothing_spent_is_a_message_too(tmp_path: Path) -> None:
    assert metrics(Books.new(tmp_path), "genai") == {}
