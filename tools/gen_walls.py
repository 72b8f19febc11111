"""Writes the tables of docs/reference/walls.md from the list of attacks and what the last battery found.

    python tools/gen_walls.py            write the page
    python tools/gen_walls.py --check    exit 1 when it is out of date

The findings are `tests/attacks/walls/found.json`, which `make walls` writes: it plays every case in both tiers, with
all walls and with each one switched off. `tests/unit/docs/test_walls_page.py` keeps the page in step with both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.attacks.walls.cases import BY_ID, CASES, GROUPS, Case  # noqa: E402
from tests.attacks.walls.play import FOUND, SHARE  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "walls.md"
BEGIN, END = "<!-- tables: python tools/gen_walls.py -->", "<!-- end of tables -->"
TIERS = ("root", "user")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"

    head = list(head)
    return line(head) + "|" + "---|" * len(head) + "\n" + "".join(line(row) for row in rows) + "\n"


def verdict(case: Case, found: dict[str, Any], tier: str) -> str:
    """What came of a case in a tier."""
    if case.runs == "elsewhere":
        return "another test"
    if case.runs == "not here":
        return "not here"
    result = found[tier]["results"].get(case.id)
    if result is None:
        return "not run"
    if case.expected == "stopped":
        return "**got through**" if result else "stopped"
    if case.expected == "open":
        return "open" if result else "stopped"
    return "works" if result else "**does not work**"


def opening(case: Case, found: dict[str, Any]) -> str:
    """Walls whose absence alone lets it through."""
    if case.runs not in ("batch", "own") or case.expected != "stopped":
        return "–"
    names = []
    for tier in TIERS:
        alone = [wall for wall, cases in found[tier]["without"].items() if case.id in cases]
        names += [f"{wall} ({tier})" for wall in alone]
    return ", ".join(names) or "none"


def cases(found: dict[str, Any]) -> str:
    text = ""
    for letter, title in GROUPS.items():
        rows = [
            (
                case.id,
                case.tried + (f" ({case.why})" if case.expected == "open" else ""),
                verdict(case, found, "root"),
                verdict(case, found, "user"),
                ", ".join(case.by) or "–",
                opening(case, found),
                "yes" if case.id in found["root"]["control"] else "–",
            )
            for case in CASES
            if case.group == letter
        ]
        head = (
            "Case",
            "What is tried",
            "As root",
            "As a user",
            "In its way",
            "Opens alone without",
            "Works without walls",
        )
        text += f"### {title}\n\n{table(head, rows)}"
    return text


def alone(found: dict[str, Any]) -> str:
    rows = []
    for wall in sorted({name for tier in TIERS for name in found[tier]["without"]}):
        cells = [f"`{wall}`"]
        for tier in TIERS:
            if wall not in found[tier]["without"]:
                cells += ["–", "–"]
                continue
            through, played = found[tier]["without"][wall], found[tier]["played"][wall]
            cells += [f"{100 * (1 - len(through) / played):.1f} %", ", ".join(through) or "–"]
        rows.append(cells)
    return table(("Wall off", "Still stopped, root", "Through", "Still stopped, user", "Through"), rows)


def elsewhere() -> str:
    rows = [(case.id, case.tried, f"`{case.why}`") for case in CASES if case.runs == "elsewhere"]
    return table(("Case", "What is tried", "Test"), rows)


def not_here() -> str:
    rows = [(case.id, case.tried, case.why) for case in CASES if case.runs == "not here"]
    return table(("Case", "What is tried", "Why not"), rows)


def tables(found: dict[str, Any]) -> str:
    """Everything between the marks."""
    attacks = [name for name in found["root"]["results"] if BY_ID[name].expected == "stopped"]
    counts = (
        f"{len(CASES)} cases; {len(found['root']['results'])} are played here in each tier, "
        f"{len(attacks)} of them attacks; "
        f"{sum(case.runs == 'elsewhere' for case in CASES)} have tests of their own, "
        f"{sum(case.runs == 'not here' for case in CASES)} cannot be played here."
    )
    bar = f"The bar: {SHARE['root']} % as root, {SHARE['user']} % as a user."
    return (
        f"{counts}\n\n## With one wall switched off\n\n{bar}\n\n{alone(found)}## All cases\n\n{cases(found)}"
        f"## Played by other tests\n\n{elsewhere()}## What cannot be played here\n\n{not_here()}"
    )


def page() -> str:
    """The whole page as it should be."""
    found = json.loads(FOUND.read_text("utf-8"))
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(found)}{END}{after}"


def main(arguments: list[str]) -> int:
    made = page()
    if arguments == ["--check"]:
        return 0 if made == PAGE.read_text("utf-8") else 1
    PAGE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
