"""An agent's questions in a real browser: read, granted, refused; nothing of the agent's ever runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from console_fake import ALICE, asked_question, sample_view
from test_console_browser import _CONTRAST, PAYLOADS

from vestibule.core.model import State

QUESTION = "q-0123456789abcdef"


def show(stage: Any, *asked: Any, **changes: Any) -> None:
    stage.runs.views[stage.run] = sample_view(stage.run, questions=asked, **changes)


def test_a_person_reads_the_question_and_grants_it(stage: Any, open_page: Callable[..., Any]) -> None:
    show(stage, asked_question(stage.run), state=State.AWAITING_ANSWER, gate=None)
    page = open_page(java_script_enabled=False)
    stage.sign_in(page)
    page.goto(stage.url)
    assert page.get_by_text("1 question", exact=True).is_visible()
    page.goto(f"{stage.url}/runs/{stage.run}")
    question = page.locator(f"#{QUESTION}")
    assert "lib/tax/**" in question.inner_text()
    assert question.get_by_text("Untrusted").is_visible()
    question.get_by_label("Grant").check()
    question.get_by_label("Reason").fill("The rates are no secret.")
    question.get_by_role("button").click()
    assert stage.runs.answered == [(QUESTION, "grant", "The rates are no secret.", ALICE)]
    assert page.get_by_role("alert").inner_text().startswith("✓ Recorded: grant.")


def test_an_answer_without_a_choice_is_not_sent(stage: Any, open_page: Callable[..., Any]) -> None:
    show(stage, asked_question(stage.run))
    page = open_page()
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    page.locator(f"#{QUESTION}").get_by_role("button").click()
    assert page.url.endswith(stage.run)
    assert stage.runs.answered == []


def test_what_nobody_may_grant_can_only_be_refused(stage: Any, open_page: Callable[..., Any]) -> None:
    show(stage, asked_question(stage.run, beyond=(("deploy/prod.yaml", "it is protected"),), grantable=False))
    page = open_page()
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    question = page.locator(f"#{QUESTION}")
    assert question.get_by_label("Grant").is_disabled()
    question.get_by_label("Refuse").check()
    question.get_by_label("Reason").fill("Not this one.")
    question.get_by_role("button").click()
    assert [item[1] for item in stage.runs.answered] == ["refuse"]


def test_nothing_that_an_agent_asks_runs_or_breaks_the_page(stage: Any, open_page: Callable[..., Any]) -> None:
    asked = {"paths": [f"lib/{item}" for item in PAYLOADS], "access": "read"}
    show(stage, asked_question(stage.run, asked=asked, why="\n".join(PAYLOADS)))
    page = open_page(viewport={"width": 400, "height": 800})
    stage.sign_in(page)
    page.goto(f"{stage.url}/runs/{stage.run}")
    assert page.title() != "owned"
    assert page.locator("iframe, script, svg").count() == 0
    assert not [line for line in page.said if "error" in line or "dialog" in line]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400


def test_text_of_a_question_is_readable(stage: Any, open_page: Callable[..., Any]) -> None:
    refused = asked_question(stage.run, id="q-2", state="refused", person=ALICE, reason="No.", standing=None)
    show(stage, asked_question(stage.run), refused)
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        stage.sign_in(page)
        page.goto(f"{stage.url}/runs/{stage.run}")
        assert page.evaluate(_CONTRAST) == []
