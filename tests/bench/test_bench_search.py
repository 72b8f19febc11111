"""Searching a scope of 50,000 files, beside ripgrep over the same tree in the same run."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vestibule.boundary.context.limits import ContextLimits
from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.search import Found, ripgrep, search
from vestibule.boundary.context.texts import RACY_NS, Texts
from vestibule.boundary.context.tree import Tree
from vestibule.boundary.context.workspace import Workspace
from vestibule.core.model import Scope

pytestmark = pytest.mark.bench

LIMITS = ContextLimits(search_seconds=60.0)
MARKS = 10
ROUNDS = 7


@pytest.fixture(scope="module")
def count(pytestconfig: pytest.Config) -> int:
    """Files of the tree: all of them for figures, few for correctness."""
    full = pytestconfig.getoption("markexpr") == "bench"
    return int(os.environ.get("VESTIBULE_BENCH_FILES", "50000" if full else "2000"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, count: int) -> Path:
    """Source-like text, 40 files a folder, 3 KiB each on average; a mark in `MARKS` of them."""
    pick = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz_"
    words = ["".join(pick.choice(letters) for _ in range(pick.randint(3, 12))) for _ in range(5000)]
    root = tmp_path_factory.mktemp("tree")
    for number in range(count):
        folder = root / f"src/p{number // 2000:02}/m{number // 40:04}"
        if number % 40 == 0:
            folder.mkdir(parents=True)
        lines = [
            "    " * pick.randint(0, 3) + " ".join(pick.choices(words, k=pick.randint(2, 9)))
            for _ in range(pick.randint(10, 110))
        ]
        if number % (count // MARKS) == 3:
            lines[5] = "def needle_in_haystack(Straw):"
        (folder / f"f{number:05}.py").write_text("\n".join(lines) + "\n")
    time.sleep(2 * RACY_NS / 1e9)
    return root


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    return found


def test_search_over_fifty_thousand_files(tree: Path, count: int) -> None:
    workspace = Workspace(tree)
    table = Tree(workspace, Rights(Scope(read=("src/**",), write=())))
    texts = Texts(workspace, table, LIMITS)
    program = ripgrep()
    rounds = ROUNDS if count >= 50_000 else 1

    def find(query: str, *, regex: bool = False, engine: str | None = program) -> Found:
        return search(texts, query, regex=regex, limits=LIMITS, program=engine)

    def plain(pattern: str, *more: str) -> int:
        if program is None:
            return -1
        done = subprocess.run(
            [program, "--no-config", "-n", *more, pattern, str(tree)], capture_output=True, check=False
        )
        return len(done.stdout.splitlines())

    (cold,) = timed(lambda: find("needle_in"), 1)
    rows: list[tuple[str, list[float], list[float]]] = []
    for name, query, regex in (
        ("literal, ten lines", "needle_in", False),
        ("literal, no line", "zzz_not_there", False),
        ("expression with a word boundary", r"\bneedle_\w+\(", True),
        ("expression without a literal", r"[A-Z][a-z]{4}\)", True),
    ):
        assert len(find(query, regex=regex).hits) == (0 if "no line" in name else MARKS), name
        ours = timed(lambda query=query, regex=regex: find(query, regex=regex), rounds)  # type: ignore[misc]
        peer = timed(lambda query=query, regex=regex: plain(query, *(() if regex else ("-F",))), rounds)  # type: ignore[misc]
        rows.append((name, ours, peer))
    changed = tree / "src/p00/m0000/f00000.py"

    def after_a_change() -> None:
        changed.write_text(changed.read_text() + "x\n")
        find("needle_in")

    rows.append(
        (
            "literal, after a file was written",
            timed(after_a_change, rounds),
            timed(lambda: plain("needle_in", "-F"), rounds),
        )
    )
    assert {hit.text for hit in find("needle_in").hits} == {"def needle_in_haystack(Straw):"}
    if program is not None:
        assert plain("needle_in", "-F") == MARKS
    walked = timed(table.items, rounds)
    size = sum(item.size for item in table.items()) >> 20
    lines = [f"\nsearch over {count} files, {size} MiB; warm p50 (best), {rounds} rounds; first search {cold:.0f} ms"]
    for name, ours, peer in rows:
        p50 = statistics.median(ours)
        beside = f"ripgrep {statistics.median(peer):4.0f} ms, ratio {p50 / statistics.median(peer):.2f}"
        lines.append(f"  {name:36} {p50:4.0f} ms ({min(ours):4.0f})  {beside if program else 'no ripgrep here'}")
    lines.append(f"  of which looking at every name again {statistics.median(walked):4.0f} ms ({min(walked):4.0f})")
    print(*lines, sep="\n", file=sys.stdout)
    workspace.close()
