"""What pages show: everything, escaped, and nothing that hides."""

from __future__ import annotations

import html
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from console_fake import BASE, HEAD, Console, patch_for, refused_example, sample_view, timeline

from vestibule.core.labels import Integrity
from vestibule.core.model import Decision, Finding, Gate, Person, Place, State, Wall, WallsReport
from vestibule.core.runs import Check
from vestibule.core.verdict import Ruling

MARK = "zqx9"
TAG = f"{MARK}<img src=x onerror=alert(1)>\"'></td><script>alert(1)</script>{{{{7*7}}}}\u202e&amp;"


class Elements(HTMLParser):
    """Every element and attribute name of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def hostile(run: str) -> Any:
    """A view in which every field of text that someone else could write is hostile."""
    view = sample_view(run)
    assert view.task is not None
    assert view.gate is not None
    assert view.ticket is not None
    spec = view.task.spec.model_copy(
        update={
            "title": TAG,
            "body": TAG,
            "requirements": (TAG,),
            "acceptance": (TAG,),
            "notices": (TAG,),
            "ticket_digest": TAG,
            "integrity": Integrity.OUTSIDER,
        }
    )
    scope = view.task.scope.model_copy(update={"commands": (TAG,), "hosts": (TAG,), "registries": (TAG,)})
    agent = view.task.agent.model_copy(update={"name": TAG, "adapter": TAG, "model": TAG, "version": TAG})
    event = timeline()[7].model_copy(
        update={
            "seq": 900,
            "resource": TAG,
            "why": TAG,
            "actor": TAG,
            "action": TAG,
            "reasons": (TAG,),
            "time": TAG,
            "verdict": Ruling.DENY,
            "refusal": refused_example().model_copy(update={"rule": TAG, "reason": TAG, "fact": TAG}),
        }
    )
    decision = Decision(
        id="d",
        gate=view.gate.id,
        run=run,
        person=Person(id=TAG, how=TAG),
        choice="reject",
        reason=TAG,
        binding=view.gate.binding.model_copy(update={"head_commit": TAG}),
        self_review=True,
        time=TAG,
    )
    return view.model_copy(
        update={
            "title": TAG,
            "reasons": (TAG,),
            "refusals": (refused_example().model_copy(update={"reason": TAG, "fact": TAG}),),
            "requester": TAG,
            "ticket": view.ticket.model_copy(update={"source": TAG, "text": TAG, "author": TAG + "2"}),
            "task": view.task.model_copy(update={"spec": spec, "role": TAG, "scope": scope, "agent": agent}),
            "workload": TAG,
            "branch": TAG,
            "target": TAG,
            "changed_files": (TAG.replace("/", ""), "src/" + TAG),
            "patch": patch_for(TAG.replace("/", ""), [TAG, f"diff --git a/{TAG} b/{TAG}"])
            + f'diff --git "a/{MARK}\\"<b>" "b/{MARK}\\"<b>"\nold mode 100644\nnew mode 100755\n'.encode(),
            "message": TAG,
            "findings": (
                Finding(
                    rule=TAG,
                    severity="error",
                    verdict=Ruling.HOLD,
                    message=TAG,
                    place=Place(path=TAG, line=1),
                    excerpt=TAG,
                    fix=TAG,
                    tool=TAG,
                ),
            ),
            "checks": (Check(name=TAG, result=TAG, detail=TAG, commit=TAG, time=TAG),),
            "events": (*timeline(), event),
            "walls": WallsReport(backend=TAG, tier="none", walls={TAG: Wall(state="down", proved_by=TAG)}),
            "walls_minimum": (TAG,),
            "gate": view.gate.model_copy(update={"eligible": (TAG,)}),
            "decisions": (decision,),
        }
    )


def test_markup_in_any_field_stays_text(console: Console) -> None:
    console.runs.views[console.run] = hostile(console.run)
    client = console.signed_in()
    for path in ("/", f"/runs/{console.run}?show=all&timeline=all"):
        page = client.get(path).text
        found = Elements(page)
        assert page.count(MARK) >= (2 if path == "/" else 40)
        assert set(found.tags).isdisjoint(
            {"script", "iframe", "object", "embed", "svg", "b" if path == "/" else "style"}
        )
        assert found.tags.count("img") == 1
        assert not [name for name in found.attributes if name.startswith("on") or name in ("style", "srcdoc")]
        assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in found.links), found.links
        assert "49" not in "".join(found.text).replace("1049", "")
        assert "\u202e" not in page
        assert "⟦U+202E⟧" in page


def test_hostile_words_in_a_persons_reason_stay_text(console: Console) -> None:
    client = console.signed_in()
    form = console.form(client.get(f"/runs/{console.run}").text)
    console.runs.decide_fails = None
    page = console.post(client, form | {"choice": "x", "reason": "</textarea><script>alert(1)</script>"}).text
    assert "<script" not in page
    assert html.escape("</textarea><script>") in page


def test_ticket_text_never_becomes_a_template(console: Console) -> None:
    console.runs.views[console.run] = sample_view(console.run, title="{{ session.form_token }}{% include 'x' %}")
    page = console.signed_in().get(f"/runs/{console.run}").text
    assert "{{ session.form_token }}{% include &#39;x&#39; %}" in page


def test_hidden_characters_are_written_out_where_they_are(console: Console) -> None:
    lines = ["access = 'user\u202e\u2066# admin\u2069'", "zero\u200bwidth", "nul\x00", "esc\x1b[2K", "\U000e0041tag"]
    patch = patch_for("src/a.py", lines)
    console.runs.views[console.run] = sample_view(console.run, patch=patch, changed_files=("src/a.py",))
    page = console.signed_in().get(f"/runs/{console.run}").text
    for shown in ("U+202E", "U+2066", "U+2069", "U+200B", "U+0000", "U+001B", "U+E0041"):
        assert f"⟦{shown}⟧" in page
    assert not any(char in page for char in "\u202e\u2066\u2069\u200b\x00\x1b")
    assert "7 hidden characters in the lines below" in page


def test_bytes_that_are_no_text_are_written_out(console: Console) -> None:
    patch = patch_for("src/a.py", ["x"]).replace(b"+x\n", b"+caf\xe9\n")
    console.runs.views[console.run] = sample_view(console.run, patch=patch, changed_files=("src/a.py",))
    assert "⟦0xE9⟧" in console.signed_in().get(f"/runs/{console.run}").text


def test_a_look_alike_name_is_pointed_out_and_an_honest_one_is_not(console: Console) -> None:
    gate = sample_view(console.run).gate
    assert isinstance(gate, Gate)
    eligible = ("local:jan\u0435-doe", "local:Łukasz", "local:O'Brien")
    console.runs.views[console.run] = sample_view(console.run, gate=gate.model_copy(update={"eligible": eligible}))
    page = console.signed_in().get(f"/runs/{console.run}").text
    assert page.count(">Latin + Cyrillic letters<") == 1
    assert "local:Łukasz" in page
    assert "O&#39;Brien" in page


def test_line_feeds_in_names_are_visible(console: Console) -> None:
    console.runs.views[console.run] = sample_view(console.run, changed_files=("src/a\nb.py",))
    page = console.signed_in().get(f"/runs/{console.run}").text
    assert "src/a⏎b.py" in page
    assert "unsafe name (path.control)" in page


def test_the_agents_words_are_marked_as_untrusted(console: Console) -> None:
    page = console.signed_in().get(f"/runs/{console.run}").text
    at = page.index("I fixed the total and added a test.")
    assert "Untrusted text by the agent. It is no evidence." in page[at - 300 : at]
    at = page.index("This was agreed.")
    assert "agent says:" in page[at - 120 : at]


def test_a_persons_reason_is_not_called_the_agents(console: Console) -> None:
    event = timeline()[0].model_copy(update={"subject": "person", "why": "I looked at it."})
    console.runs.views[console.run] = sample_view(console.run, events=(event,))
    page = console.signed_in().get(f"/runs/{console.run}").text
    at = page.index("I looked at it.")
    assert "reason:" in page[at - 60 : at]
    assert "says:" not in page[at - 60 : at]


def test_many_refusals_do_not_bury_the_verdict(console: Console) -> None:
    many = tuple(refused_example().model_copy(update={"fact": f"deploy/{number}"}) for number in range(40))
    console.runs.views[console.run] = sample_view(console.run, refusals=many)
    page = console.signed_in().get(f"/runs/{console.run}").text
    assert "deploy/2<" in page
    assert "deploy/3<" not in page
    assert "37 more refusals" in page


def test_a_scripted_model_is_named_so(console: Console) -> None:
    client = console.signed_in()
    assert "cripted model" not in client.get("/").text + client.get(f"/runs/{console.run}").text
    console.runs.views[console.run] = sample_view(console.run, scripted_model=True)
    assert "scripted model" in client.get("/").text
    assert "no AI model took part in this run" in client.get(f"/runs/{console.run}").text


def test_a_held_change_says_so_and_what_undoes_it(console: Console) -> None:
    client = console.signed_in()
    assert "paused" not in client.get("/").text + client.get(f"/runs/{console.run}").text
    words = f"claude-code@2+m+0, since 2026-03-04; too dear {TAG}"
    console.runs.views[console.run] = sample_view(console.run, held=words)
    queue, page = client.get("/").text, client.get(f"/runs/{console.run}").text
    for shown in (queue, page):
        assert "claude-code@2+m+0, since 2026-03-04" in shown
        assert "paused" in shown
        assert "<img src=x" not in shown
    assert 'chip hold">held' in queue
    assert "vestibule agents release" in page


def test_an_outsiders_ticket_is_called_untrusted(console: Console) -> None:
    view = sample_view(console.run)
    assert view.task is not None
    spec = view.task.spec.model_copy(update={"integrity": Integrity.OUTSIDER})
    console.runs.views[console.run] = sample_view(console.run, task=view.task.model_copy(update={"spec": spec}))
    assert "treat its words as untrusted" in console.signed_in().get(f"/runs/{console.run}").text


def test_the_verdict_names_what_is_missing_who_can_unblock_and_until_when(console: Console) -> None:
    page = console.signed_in().get(f"/runs/{console.run}").text
    for words in ("awaiting review", "1 of 1 approval", "local:bob", "in 6 d 23 h", "2026-03-11 09:00:00 UTC"):
        assert words in page
    assert page.index('id="verdict"') < page.index('id="identity"') < page.index('id="intent"')
    assert page.index('id="scope"') < page.index('id="findings"') < page.index('id="diff"') < page.index('id="decide"')


def test_the_form_shows_what_it_is_bound_to(console: Console) -> None:
    page = console.signed_in().get(f"/runs/{console.run}").text
    form = page[page.index('id="decide"') :]
    gate = sample_view(console.run).gate
    assert gate is not None
    for digest in (HEAD, BASE, gate.binding.tree, gate.binding.policy_digest, gate.binding.findings_digest):
        assert digest in form
    assert form.count(console.form(page)["seen"]) == 2


def test_refusals_say_rule_reason_fact_and_next_step(console: Console) -> None:
    page = console.signed_in().get(f"/runs/{console.run}").text
    at = page.index('id="timeline"')
    for words in ("context.write.scope", "outside of what the task may write", "deploy/prod.yaml", "Widen `write`"):
        assert words in page[at:]


def test_scope_check_points_at_what_lies_outside(console: Console) -> None:
    files = ("src/shop/cart.py", "tests/test_cart.py", "deploy/prod.yaml", ".github/workflows/ci.yml", "CLAUDE.md")
    console.runs.views[console.run] = sample_view(console.run, changed_files=files)
    page = console.signed_in().get(f"/runs/{console.run}").text
    assert "3 of 5 touched paths lie outside" in page
    assert page.count(">protected<") == 2
    assert "agent-control file" in page


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_page(console: Console, state: State) -> None:
    bare = sample_view(
        console.run,
        state=state,
        task=None,
        ticket=None,
        gate=None,
        walls=None,
        audit=None,
        events=(),
        patch=b"",
        changed_files=(),
        findings=(),
        head_commit="",
    )
    client = console.signed_in()
    for view in (bare, sample_view(console.run, state=state)):
        console.runs.views[console.run] = view
        assert client.get(f"/runs/{console.run}").status_code == 200
        assert state.value.replace("_", " ") in client.get("/").text


def test_an_empty_queue_says_how_to_start(console: Console) -> None:
    console.runs.views.clear()
    assert "vestibule run TICKET" in console.signed_in().get("/").text


def test_waiting_runs_come_first(console: Console) -> None:
    other = console.run[:-1] + ("0" if console.run[-1] != "0" else "1")
    console.runs.views = {
        other: sample_view(other, state=State.MERGED, title="Done already"),
        console.run: sample_view(console.run),
    }
    page = console.signed_in().get("/").text
    assert page.index("Vouchers are ignored") < page.index("Done already")


def test_a_long_timeline_keeps_every_refusal_and_counts_the_rest(console: Console) -> None:
    events = timeline(900)
    late = timeline()[9].model_copy(
        update={"seq": 5000, "verdict": Ruling.DENY, "resource": "late/denied", "intent": None}
    )
    late = late.model_copy(update={"phase": "intent"})
    console.runs.views[console.run] = sample_view(console.run, events=(*events, late))
    client = console.signed_in()
    page = client.get(f"/runs/{console.run}").text
    assert "further allowed entries are not listed" in page
    assert "late/denied" in page
    assert "src/module_899.py" not in page
    assert "src/module_899.py" in client.get(f"/runs/{console.run}?timeline=all").text


def test_an_intent_without_outcome_is_called_so(console: Console) -> None:
    console.runs.views[console.run] = sample_view(console.run, events=timeline()[:1])
    assert "no outcome" in console.signed_in().get(f"/runs/{console.run}").text


def test_a_diff_of_20000_lines_is_a_page_within_two_seconds(console: Console) -> None:
    lines = [f"    value_{number} = compute({number})  # größe <{number}>" for number in range(20_000)]
    console.runs.views[console.run] = sample_view(
        console.run, patch=patch_for("src/big.py", lines), changed_files=("src/big.py",)
    )
    client = console.signed_in()
    best = min(_seconds(client, f"/runs/{console.run}?show=all") for _ in range(3))
    assert "value_19999" in client.get(f"/runs/{console.run}?show=all").text
    assert best < 2.0, f"{best:.2f} s"
    collapsed = min(_seconds(client, f"/runs/{console.run}") for _ in range(3))
    assert collapsed < 0.5, f"{collapsed:.2f} s"


def _seconds(client: Any, path: str) -> float:
    start = time.process_time()  # of all threads, so that a busy machine fails no test

    assert client.get(path).status_code == 200
    return time.process_time() - start


def test_pages_have_landmarks_captions_and_one_heading(console: Console) -> None:
    client = console.signed_in()
    for path in ("/", f"/runs/{console.run}"):
        page = client.get(path).text
        found = Elements(page)
        assert found.tags.count("h1") == 1
        assert found.tags.count("main") == 1
        assert {"header", "footer", "nav"} <= set(found.tags)
        assert found.tags.count("table") == found.tags.count("caption")
        assert '<html lang="en">' in page
        assert "Skip to the content" in page
