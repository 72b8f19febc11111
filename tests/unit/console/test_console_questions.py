"""An agent's questions on the run's page: shown as untrusted, answered by the rules of a decision."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from console_fake import ALICE, NOW, Console, asked_question, sample_view

from vestibule.core.clock import rfc3339
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.model import State
from vestibule.core.refusal import refusal
from vestibule.core.runs import Standing


def show(console: Console, *asked: Any, **changes: Any) -> None:
    console.runs.views[console.run] = sample_view(console.run, questions=asked, **changes)


def opened(console: Console) -> tuple[Any, str, dict[str, str]]:
    """A signed-in browser, the page, and the fields of its first form for an answer."""
    client = console.signed_in()
    page = client.get(f"/runs/{console.run}").text
    found = re.search(r'<form method="post" action="/runs/[^"]*/answer">(.*?)</form>', page, re.DOTALL)
    form = dict(re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', found[1])) if found else {}
    return client, page, {**form, "choice": "grant", "reason": "It needs the rates."}


def send(console: Console, client: Any, form: dict[str, str], **headers: str) -> Any:
    head = {"origin": "http://127.0.0.1:8123", **headers}
    return client.post(f"/runs/{console.run}/answer", data=form, headers=head)


@pytest.mark.parametrize("choice", ["grant", "refuse"])
def test_an_answer_is_recorded_under_the_person_of_the_process(console: Console, choice: str) -> None:
    show(console, asked_question(console.run), state=State.AWAITING_ANSWER, gate=None)
    client, page, form = opened(console)
    assert "lib/prices.py" in page
    assert "The run goes on when every question is answered" in page.replace("the run", "The run")
    done = send(console, client, form | {"choice": choice, "person": "local:mallory"})
    assert done.status_code == 303
    assert console.runs.answered == [("q-0123456789abcdef", choice, "It needs the rates.", ALICE)]
    after = client.get(f"/runs/{console.run}").text
    assert f"Recorded: {choice}." in after
    assert "It needs the rates." in after
    assert "/answer" not in after


def test_the_agents_words_are_marked_untrusted_and_stay_text(console: Console) -> None:
    asked = {"paths": ["lib/<script>alert(1)</script>", "lib/\u202egpj.exe"], "access": "read"}
    show(console, asked_question(console.run, asked=asked, why="<b>The operator agreed.</b>\u200b"))
    _, page, _ = opened(console)
    assert "<script>" not in page
    assert "<b>The operator" not in page
    assert "U+202E" in page
    assert "Untrusted: what the agent asks" in page


def test_what_lies_beyond_is_shown_with_the_reason_and_cannot_be_granted(console: Console) -> None:
    beyond = (("deploy/prod.yaml", "it is protected"),)
    show(console, asked_question(console.run, beyond=beyond, grantable=False))
    _, page, _ = opened(console)
    assert "It cannot be granted" in page
    assert "it is protected" in page
    assert re.search(r'value="grant" required disabled', page)


def test_a_block_is_acknowledged_and_has_nothing_to_grant(console: Console) -> None:
    block = asked_question(console.run, kind="block", asked={"what": "read_file x"}, grantable=False)
    show(console, block)
    client, page, form = opened(console)
    assert 'value="grant"' not in page
    assert "Acknowledge" in page
    assert send(console, client, form | {"choice": "refuse"}).status_code == 303


def test_a_held_call_shows_its_tool_and_arguments(console: Console) -> None:
    call = {"tool": "tracker_comment", "arguments": {"issue": 7, "text": "done"}, "reasons": ["labels.rule_of_two"]}
    show(console, asked_question(console.run, kind="call", asked=call))
    _, page, _ = opened(console)
    assert "tracker_comment" in page
    assert "&#34;issue&#34;: 7" in page
    assert "Exactly this call." in page


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"seen": "sha256:" + "0" * 64}, 409),
        ({"seen": ""}, 409),
        ({"question": "q-another"}, 409),
        ({"choice": "approve"}, 422),
        ({"choice": ""}, 422),
        ({"reason": "  "}, 422),
        ({"reason": "\u200b\u200b"}, 422),
        ({"reason": "because " * 600}, 422),
        ({"form_token": "x"}, 403),
    ],
)
def test_an_answer_that_is_not_quite_right_answers_nothing(
    console: Console, change: dict[str, str], status: int
) -> None:
    show(console, asked_question(console.run))
    client, _, form = opened(console)
    assert send(console, client, form | change).status_code == status
    assert console.runs.answered == []


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example.com"}, {"sec-fetch-site": "cross-site"}])
def test_another_site_cannot_answer(console: Console, headers: dict[str, str]) -> None:
    show(console, asked_question(console.run))
    client, _, form = opened(console)
    assert send(console, client, form, **headers).status_code == 403
    assert console.runs.answered == []


def test_without_a_session_nothing_is_shown_or_answered(console: Console) -> None:
    show(console, asked_question(console.run))
    _, _, form = opened(console)
    stranger = console.visitor()
    assert send(console, stranger, form).status_code == 401
    assert "lib/prices.py" not in stranger.get(f"/runs/{console.run}").text
    assert console.runs.answered == []


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "granted"},
        {"expires": rfc3339(NOW - timedelta(seconds=1))},
        {"standing": None, "refusable": False},
        {
            "standing": Standing(may=False, reason="local:alice is not among those who may answer here."),
            "refusable": False,
        },
    ],
)
def test_there_is_no_form_where_nobody_here_may_answer(console: Console, changes: dict[str, Any]) -> None:
    show(console, asked_question(console.run, **changes))
    _, page, _ = opened(console)
    assert 'action="/runs/' + console.run + '/answer"' not in page


def test_the_requester_may_refuse_and_not_grant(console: Console) -> None:
    own = Standing(may=False, reason="You asked for this run; you may refuse, and somebody else may grant.")
    show(console, asked_question(console.run, standing=own))
    _, page, _ = opened(console)
    assert own.reason in page
    assert re.search(r'value="grant" required disabled', page)
    assert re.search(r'value="refuse" required>', page)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused(refusal("scope.ceiling", "It lies beyond.", agent="-", person="Refuse it.")), 403),
        (Refused(refusal("review.stale", "It is another one.", agent="-", person="Look again.")), 409),
        (DependencyDown("audit", "The log takes no entry."), 503),
    ],
)
def test_what_the_one_path_says_is_shown_and_the_words_come_back(
    console: Console, error: Exception, status: int
) -> None:
    show(console, asked_question(console.run))
    client, _, form = opened(console)
    console.runs.answer_fails = error
    done = send(console, client, form)
    assert done.status_code == status
    assert form["reason"] in done.text
    assert console.runs.answered == []


def test_the_list_says_which_runs_ask(console: Console) -> None:
    show(console, asked_question(console.run), state=State.WORKING, gate=None)
    page = console.signed_in().get("/").text
    assert "1 question<" in page
    assert page.index("Waiting for a person") < page.index(console.run)


def test_at_the_review_gate_the_page_says_what_a_grant_leads_to(console: Console) -> None:
    show(console, asked_question(console.run))
    assert "request changes" in opened(console)[1]
