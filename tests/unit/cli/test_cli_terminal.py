"""What people read: wrapped to their terminal, whole in a pipe, and nothing of an agent's steers it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from rich.table import Table
from rich.text import Text
from tests.attacks.control_world import World, make_world

from vestibule.cli import show
from vestibule.cli.runs import _age
from vestibule.cli.runs import _show as show_runs
from vestibule.cli.terminal import ENDLESS, Page, styled
from vestibule.core.clock import rfc3339
from vestibule.core.model import Finding, Place, Subject
from vestibule.core.refusal import refusal
from vestibule.core.runs import RunView, TimelineEvent
from vestibule.core.verdict import Ruling
from vestibule.pipeline.reader import Reader

HOSTILE = "a\x1b[2J\r\nb\u202ec\u200bd\x07" + "e" * 300


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    yield made
    made.services.close()


@pytest.fixture
def view(world: World) -> RunView:
    found = Reader(world.services).get_run(world.run)
    assert found is not None
    return found


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return Page()


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.delenv("COLUMNS", raising=False)
    return Page()


def event(seq: int, action: str = "context.read", *, subject: Subject = "agent", **fields: object) -> TimelineEvent:
    values: dict[str, object] = {
        "seq": seq,
        "time": f"2026-01-02T03:04:{seq % 60:02}.000Z",
        "phase": "intent",
        "actor": "spiffe://x",
        "subject": subject,
        "action": action,
        "resource": f"src/file{seq}.py",
        "verdict": Ruling.ALLOW,
    }
    return TimelineEvent.model_validate({**values, **fields})


def timeline(
    page: Page, view: RunView, capsys: pytest.CaptureFixture[str], *events: TimelineEvent, whole: bool = False
) -> str:
    show._timeline(page, view.model_copy(update={"events": events}), whole=whole)
    return capsys.readouterr().out


def test_lines_are_wrapped_with_a_hanging_indent_and_lose_no_word(
    narrow: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    narrow.row("label", words)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("label     word0")
    assert all(line.startswith(" " * 10) and line[10] != " " for line in lines[1:])
    assert " ".join(lines).split()[1:] == words.split()
    assert all(line == line.rstrip() for line in lines)


def test_a_word_longer_than_the_line_is_folded_and_whole(narrow: Page, capsys: pytest.CaptureFixture[str]) -> None:
    narrow.row("path", "x" * 500)
    out = capsys.readouterr().out
    assert out.count("x") == 500
    assert max(map(len, out.splitlines())) <= 80


def test_into_a_pipe_nothing_is_wrapped_or_cut(piped: Page, capsys: pytest.CaptureFixture[str]) -> None:
    assert piped.width == ENDLESS
    piped.row("label", "y " * 400)
    piped.cut("z" * 400)
    out = capsys.readouterr().out
    assert out.count("\n") == 2
    assert out.count("z") == 400
    assert "\x1b" not in out


def test_a_command_to_copy_stays_one_line(narrow: Page, capsys: pytest.CaptureFixture[str]) -> None:
    narrow.whole(Text("vestibule " + "a" * 120))
    assert capsys.readouterr().out.count("\n") == 1


def test_tables_have_no_trailing_blanks(narrow: Page, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("a")
    table.add_column("b")
    table.add_row("1", "22222")
    table.add_row("1", "2")
    narrow.table(table)
    assert all(line == line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_nothing_untrusted_steers_the_terminal(
    world: World, view: RunView, narrow: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = view.model_copy(
        update={
            "title": HOSTILE,
            "changed_files": (HOSTILE, "b"),
            "refusals": (refusal("x.y", HOSTILE, fact=HOSTILE, agent="", person=""),),
            "findings": (
                Finding(rule="r", severity="error", verdict=Ruling.DENY, message=HOSTILE, place=Place(path=HOSTILE)),
            ),
            "patch": f"+{HOSTILE}\n".encode(),
            "events": (event(1, resource=HOSTILE, verdict=Ruling.DENY, reasons=(HOSTILE,), why=HOSTILE),),
        }
    )
    show._head(narrow, hostile, world.record)
    show._refusals(narrow, hostile)
    show._findings(narrow, hostile)
    show._diff(narrow, hostile)
    show._timeline(narrow, hostile, whole=True)
    show_runs([item.model_copy(update={"title": HOSTILE}) for item in Reader(world.services).list_runs()])
    out = capsys.readouterr().out
    for char in "\x1b\x07\r\u202e\u200b":
        assert char not in out, hex(ord(char))


def test_the_next_command_is_there_to_copy(
    world: World, view: RunView, narrow: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    show._head(narrow, view, world.record)
    assert f"\nnext      vestibule review {world.run} --approve --reason" in capsys.readouterr().out


def test_the_timeline_says_when_who_how_and_what_in_a_line(
    view: RunView, narrow: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    out = timeline(
        narrow,
        view,
        capsys,
        event(1, "task.admit", subject="person"),
        event(2, subject="probe", verdict=Ruling.DENY, reasons=("path.traversal",)),
        event(3, subject="probe", verdict=Ruling.DENY, reasons=("model.field.tools",)),
        event(4),
        event(5, phase="outcome", intent=4, result="failed"),
        event(6, verdict=Ruling.DENY, reasons=("context.write.scope",)),
        event(7, attempt=2),
        event(8, time="2026-01-03T00:00:00.000Z", resource="f" * 40),
    ).splitlines()
    assert "03:04:01  person  allow    task.admit      src/file1.py" in out
    assert "03:04:04  agent   failed   context.read    src/file4.py" in out
    assert sum("as it must be" in line for line in out) == 1, "once for all probes in a row"
    assert not any("path.traversal" in line for line in out), "what refuses a probe is no news"
    denied = out.index("03:04:06  agent   deny     context.read    src/file6.py")
    assert out[denied + 1].strip() == "context.write.scope"
    assert "attempt 2" in out
    assert "2026-01-03" in out
    assert any(line.endswith("  " + "f" * 12) for line in out), "commits are shortened"
    assert max(map(len, out)) <= 80


def test_a_long_timeline_keeps_both_ends_and_says_what_it_left_out(
    view: RunView, narrow: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event(number) for number in range(1, 1001)]
    out = timeline(narrow, view, capsys, *events)
    left = 1000 - show.FIRST - show.LAST
    assert f"{left} entries left out: --all" in out
    assert "src/file1.py" in out
    assert "src/file1000.py" in out
    assert out.count("src/file") == show.FIRST + show.LAST
    assert timeline(narrow, view, capsys, *events, whole=True).count("src/file") == 1000


@pytest.mark.parametrize(("columns", "more"), [("80", False), ("140", True)])
def test_a_list_of_runs_shows_as_much_as_fits(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, more: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    found = [
        item.model_copy(update={"title": "A very long title " * 9, "scripted_model": True, "cost_nano_usd": 16_846_000})
        for item in Reader(world.services).list_runs()
    ]
    show_runs(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert world.run in lines[1], "an id is never cut"
    assert "awaiting review" in lines[1]
    assert "$0.016846*" in lines[1]
    assert "script" in lines[-1]
    assert ("role" in lines[0]) is more


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "now"), (59, "now"), (61, "1m"), (3_700, "1h"), (90_000, "1d"), (-50, "now")]
)
def test_ages_are_short(seconds: int, shown: str) -> None:
    assert _age(rfc3339(datetime.now(UTC) - timedelta(seconds=seconds))) == shown


def test_text_is_cut_where_it_is_told() -> None:
    assert styled("x" * 50, limit=10).plain == "x" * 9 + "…"
