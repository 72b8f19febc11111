"""Writes the Grafana dashboards of `integrations/grafana` from the panels below.

    python tools/gen_dashboards.py            write them
    python tools/gen_dashboards.py --check    say which are out of date; exit 1 when one is

Every query names metrics and labels of `vestibule.cost.metrics`; tests/unit/integrations checks it, and that Prometheus
understands each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "integrations" / "grafana"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24


@dataclass(frozen=True)
class Panel:
    """One panel: its queries as (PromQL, legend)."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "bargauge"] = "timeseries"
    width: int = 12
    height: int = 8
    says: str = ""
    stacked: bool = False
    warn: float | None = None


AGENT = 'agent=~"$agent"'


def more(metric: str, window: str, by: str = "", where: str = "") -> str:
    """How much a counter rose within a window."""
    return f"sum{f' by ({by})' if by else ''} (increase({metric}{{{where}}}[{window}]))"


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({share}, sum by (provider, le) (rate({metric}_bucket[15m])))", f"{{{{provider}}}} {name}")
        for share, name in ((0.5, "p50"), (0.95, "p95"))
    )


COST, REQUESTS = "vestibule_llm_cost_usd_total", "vestibule_llm_requests_total"
TOKENS, DECIDED = "vestibule_llm_tokens_total", "vestibule_decisions_total"
CHARGED = 'outcome="charged"'
NO_USAGE = f"{more(REQUESTS, '24h', where=CHARGED)} / {more(REQUESTS, '24h')}"
OVER_MEAN = f"{more(COST, '1h', 'agent', AGENT)} / vestibule_cost_baseline_usd_per_hour"
BUDGETS = "(vestibule_llm_budget_spent_usd + vestibule_llm_budget_held_usd) / vestibule_llm_budget_limit_usd"
CACHED = AGENT + ',kind="cache_read"'
INPUT = AGENT + ',kind!~"output|estimated"'
CACHE_SHARE = f"{more(TOKENS, '1h', 'agent', CACHED)} / {more(TOKENS, '1h', 'agent', INPUT)}"
PER_REQUEST = f"{more(COST, '6h', 'agent_version', AGENT)} / {more(REQUESTS, '6h', 'agent_version', AGENT)}"
USD, SHARE = "currencyUSD", "percentunit"

SPEND = (
    Panel("Spent within the last day", ((more(COST, "24h", where=AGENT), ""),), USD, "stat", 6, 4),
    Panel(
        "Reserved",
        (('vestibule_llm_budget_held_usd{scope="run"}', ""),),
        USD,
        "stat",
        6,
        4,
        "Held for requests under way, or left behind by a killed process.",
    ),
    Panel("Requests under way", (("vestibule_llm_requests_held", ""),), "short", "stat", 6, 4),
    Panel(
        "Answers without usage",
        ((NO_USAGE, ""),),
        SHARE,
        "stat",
        6,
        4,
        "Charged at the most they could cost.",
        warn=0.05,
    ),
    Panel(
        "Spend per hour by agent version",
        ((more(COST, "1h", "agent_version", AGENT), "{{agent_version}}"),),
        USD,
        width=24,
        stacked=True,
    ),
    Panel(
        "Spend per hour over its daily mean",
        ((OVER_MEAN, "{{agent}}"),),
        SHARE,
        says="100 % is the mean of the 24 hours before.",
        warn=1.1,
    ),
    Panel("Budgets", ((BUDGETS, "{{scope}} {{name}}, {{window}}"),), SHARE, "bargauge", warn=0.8),
    Panel("Tokens per hour by kind", ((more(TOKENS, "1h", "kind", AGENT), "{{kind}}"),), stacked=True),
    Panel(
        "Spend per hour by model",
        ((more(COST, "1h", "provider, model", AGENT), "{{provider}}/{{model}}"),),
        USD,
        stacked=True,
    ),
    Panel("Share of input read from the cache", ((CACHE_SHARE, "{{agent}}"),), SHARE),
    Panel("Cost of a request", ((PER_REQUEST, "{{agent_version}}"),), USD),
)
DECISIONS = (
    Panel("Denied within the last day", ((more(DECIDED, "24h", where='decision="deny"'), ""),), "short", "stat", 8, 4),
    Panel("Held within the last day", ((more(DECIDED, "24h", where='decision="hold"'), ""),), "short", "stat", 8, 4),
    Panel("Runs", (("vestibule_runs", "{{state}}"),), "short", "bargauge", 8, 4),
    Panel(
        "Decisions at each crossing",
        (("sum by (action, decision) (rate(vestibule_decisions_total[5m]))", "{{action}} {{decision}}"),),
        "ops",
        width=24,
        stacked=True,
    ),
    Panel(
        "Model requests and tool calls not allowed, by rule",
        (
            (
                more("vestibule_guardrail_decisions_total", "15m", "rule, decision", 'decision!="allow"'),
                "{{rule}} {{decision}}",
            ),
        ),
        width=24,
        stacked=True,
    ),
    Panel("Time to the first token", quantiles("vestibule_llm_time_to_first_token_seconds"), "s"),
    Panel("Duration of model requests", quantiles("vestibule_llm_request_duration_seconds"), "s"),
    Panel(
        "Label values counted as other",
        (("vestibule_metrics_folded_values > 0", "{{label}}"),),
        "short",
        "bargauge",
        says="Nothing here is good. The ledger has the breakdown: `vestibule cost --by`.",
    ),
)
BOARDS: dict[str, tuple[str, tuple[Panel, ...], bool]] = {
    "vestibule-spend": ("Vestibule: spend", SPEND, True),
    "vestibule-decisions": ("Vestibule: decisions", DECISIONS, False),
}
"""File name → title, panels, whether agents can be chosen."""


def queries() -> Iterator[str]:
    """Every query, with a value in place of each variable."""
    for _, panels, _ in BOARDS.values():
        for panel in panels:
            for query, _ in panel.queries:
                yield query.replace("$agent", ".*")


def board(uid: str) -> dict[str, Any]:
    """A dashboard in Grafana's JSON model."""
    title, panels, by_agent = BOARDS[uid]
    variables: list[dict[str, Any]] = [
        {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0}
    ]
    if by_agent:
        variables.append(
            {
                "name": "agent",
                "type": "query",
                "label": "Agent",
                "datasource": SOURCE,
                "query": {"query": "label_values(vestibule_llm_requests_total, agent)", "refId": "agent"},
                "refresh": 2,
                "includeAll": True,
                "multi": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return {
        "uid": uid,
        "title": title,
        "tags": ["vestibule"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": variables},
        "panels": list(_placed(panels)),
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """Panels from left to right, row by row."""
    x = y = tallest = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height})
        x, tallest = x + panel.width, max(tallest, panel.height)


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.warn is not None:
        steps.append({"color": "orange", "value": panel.warn})
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 15 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.warn is not None else "off"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "gridPos": place,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {} if panel.kind == "timeseries" else {"reduceOptions": {"calcs": ["lastNotNull"]}},
        "targets": [
            {
                "refId": chr(65 + index),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
            }
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def files() -> dict[Path, str]:
    """Every dashboard's file → its text as it should be."""
    return {FOLDER / f"{uid}.json": json.dumps(board(uid), indent=2) + "\n" for uid in BOARDS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path], "utf-8")
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
