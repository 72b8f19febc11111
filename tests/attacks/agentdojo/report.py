"""Writes the tables of docs/reference/agentdojo.md: `python -m tests.attacks.agentdojo.report [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.agentdojo import replay
from vestibule.core.ports import Decider, PolicyInput
from vestibule.core.verdict import Ruling, Verdict

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "agentdojo.md"
BEGIN, END = "<!-- numbers: python -m tests.attacks.agentdojo.report -->", "<!-- end of numbers -->"


@dataclass(frozen=True)
class Without:
    """The policy as it is, with some holds taken out: what the other rules do alone."""

    inner: Decider
    reasons: frozenset[str]

    @property
    def digest(self) -> str:
        return self.inner.digest

    def decide(self, request: PolicyInput) -> Verdict:
        verdict = self.inner.decide(request)
        if verdict.ruling is Ruling.HOLD and set(verdict.reasons) <= self.reasons:
            return Verdict(ruling=Ruling.ALLOW, reasons=())
        return verdict


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def attack_row(name: str, pairs: list[replay.Pair]) -> str:
    hits = sum(pair.success for pair in pairs)
    low, high = replay.interval(hits, len(pairs))
    share = f"{100 * hits / len(pairs):.2f} %"
    return f"| {name} | {hits} of {len(pairs)} | {share} | {100 * low:.2f} to {100 * high:.2f} % |"


def plan_row(name: str, plans: list[replay.Plan]) -> str:
    free = sum(plan.held == plan.denied == 0 for plan in plans)
    one = sum(plan.held <= 1 and plan.denied == 0 for plan in plans)
    total, denied = len(plans), sum(plan.denied > 0 for plan in plans)
    return f"| {name} | {percent(free, total)} ({free}) | {percent(one, total)} ({one}) | {denied} | {total} |"


def suite_rows(pairs: list[replay.Pair], plans: list[replay.Plan]) -> list[str]:
    rows = []
    for suite in replay.suites():
        hit = [pair for pair in pairs if pair.suite == suite]
        own = [plan for plan in plans if plan.suite == suite]
        free = sum(plan.held == plan.denied == 0 for plan in own)
        one = sum(plan.held <= 1 and plan.denied == 0 for plan in own)
        hits, total = sum(pair.success for pair in hit), len(own)
        rows.append(f"| {suite} | {hits} of {len(hit)} | {free} of {total} | {one} of {total} |")
    return rows


SHIPPED = "Shipped policy"


def deciders() -> dict[str, Callable[[], Decider]]:
    shipped = replay.shipped()
    return {
        "No defence": replay.Unguarded,
        "Rule of Two alone": lambda: Without(shipped, frozenset({"labels.provenance"})),
        "Provenance alone": lambda: Without(shipped, frozenset({"labels.rule_of_two"})),
        SHIPPED: lambda: shipped,
    }


def table() -> str:
    """Both tables, in Markdown."""
    attacks, plans = [], []
    for name, make in deciders().items():
        pairs, own = replay.pairs(make()), replay.plans(make())
        attacks.append(attack_row(name, pairs))
        plans.append(plan_row(name, own))
    for name, without in {
        "Shipped policy; nothing shown as identifiers": {"identifiers"},
        "Shipped policy; no identifiers, nothing inside, no free wording": {"identifiers", "inside", "free_text"},
    }.items():
        plans.append(plan_row(name, replay.plans(make(), frozenset(without))))
    lines = [
        "| | Injections that succeed | Share | 95 % interval |",
        "|---|---|---|---|",
        *attacks,
        "",
        "| | Plans that run with nobody asked | With one approval of one call | Plans with a denied call | Plans |",
        "|---|---|---|---|---|",
        *plans,
        "",
        "| Suite (shipped policy) | Injections that succeed | Plans with nobody asked | With one approval |",
        "|---|---|---|---|",
        *suite_rows(pairs, own),
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if arguments == ["--check"]:
        print("the page is up to date" if made == page else "the page differs from what the replay gives")
        return 0 if made == page else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
