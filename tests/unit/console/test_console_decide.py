"""A person's decision, from the form to the one path that records it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from console_fake import ALICE, NOW, PATCH, Console, patch_for, rebound, refused_example, sample_view

from vestibule.core.errors import DependencyDown, Refused, UsageError
from vestibule.core.model import State
from vestibule.core.refusal import refusal
from vestibule.core.runs import Standing


def open_run(console: Console, query: str = ""):  # type: ignore[no-untyped-def]
    client = console.signed_in()
    page = client.get(f"/runs/{console.run}{query}")
    assert page.status_code == 200
    return client, page.text, console.form(page.text)


def change(console: Console, **changes: object) -> None:
    console.runs.views[console.run] = sample_view(console.run, **changes)


@pytest.mark.parametrize("choice", ["approve", "request-changes", "reject"])
def test_a_decision_is_recorded_under_the_person_of_the_process(console: Console, choice: str) -> None:
    client, _, form = open_run(console)
    form |= {"choice": choice, "reason": "  Łukasz checked it.\r\nTwice. ", "person": "local:mallory"}
    answer = console.post(client, form)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/runs/{console.run}"
    assert console.runs.decided == [(console.run, choice, "Łukasz checked it.\nTwice.", ALICE)]
    page = client.get(answer.headers["location"]).text
    assert f"Recorded: {choice}." in page
    assert "Łukasz checked it." in page
    assert "Recorded:" not in client.get(answer.headers["location"]).text


@pytest.mark.parametrize("reason", ["", "   ", "\n\n", ".", "\u200b\u200b\u200b", "\u2800\u3164"])
def test_a_decision_needs_a_reason_that_says_something(console: Console, reason: str) -> None:
    client, _, form = open_run(console)
    answer = console.post(client, form | {"reason": reason})
    assert answer.status_code == 422
    assert "needs a reason" in answer.text
    assert console.runs.decided == []


def test_an_overlong_reason_is_given_back(console: Console) -> None:
    client, _, form = open_run(console)
    answer = console.post(client, form | {"reason": "because " * 600})
    assert answer.status_code == 422
    assert "because because" in answer.text


@pytest.mark.parametrize("choice", ["", "Approve", "merge", "approve "])
def test_nothing_but_the_three_choices_decides(console: Console, choice: str) -> None:
    client, _, form = open_run(console)
    assert console.post(client, form | {"choice": choice}).status_code == 422
    assert console.runs.decided == []


def test_approval_dies_with_a_new_commit(console: Console) -> None:
    client, _, form = open_run(console)
    console.runs.views[console.run] = rebound(console.runs.views[console.run], "d4" * 20)
    answer = console.post(client, form)
    assert answer.status_code == 409
    assert "moved on while you were looking" in answer.text
    assert "d4" * 20 in answer.text
    assert form["reason"] in answer.text
    assert console.runs.decided == []


def test_what_was_seen_is_checked_by_the_callee_again(console: Console) -> None:
    client, _, form = open_run(console)
    console.runs.decide_fails = Refused(
        refusal("review.stale", "It moved on just now.", agent="-", person="Look again.")
    )
    answer = console.post(client, form)
    assert answer.status_code == 409
    assert "It moved on just now." in answer.text
    assert "Look again." in answer.text


@pytest.mark.parametrize("seen", ["", "sha256:" + "0" * 64])
def test_a_digest_that_was_never_shown_decides_nothing(console: Console, seen: str) -> None:
    client, _, form = open_run(console)
    assert console.post(client, form | {"seen": seen}).status_code == 409
    assert console.runs.decided == []


@pytest.mark.parametrize("token", [None, "", "x", "ü" * 43])
def test_a_decision_needs_the_sessions_form_token(console: Console, token: str | None) -> None:
    client, _, form = open_run(console)
    form.pop("form_token")
    assert console.post(client, form | ({} if token is None else {"form_token": token})).status_code == 403
    assert console.runs.decided == []


def test_a_field_sent_twice_decides_nothing(console: Console) -> None:
    client, _, form = open_run(console)
    body = "&".join(f"{key}={value}" for key, value in form.items()) + "&choice=reject"
    answer = client.post(
        f"/runs/{console.run}/decision",
        content=body.replace(" ", "+"),
        headers={"origin": "http://127.0.0.1:8123", "content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 403
    assert console.runs.decided == []


def test_approving_unseen_files_is_refused_until_they_were_opened(console: Console) -> None:
    big = patch_for("src/big.py", [f"line {number}" for number in range(2000)])
    binary = b"diff --git a/src/a.png b/src/a.png\nindex 1..2 100644\nBinary files a/src/a.png and b/src/a.png differ\n"
    change(
        console,
        patch=PATCH + big + binary,
        changed_files=("src/shop/cart.py", "tests/test_cart.py", "src/big.py", "src/a.png"),
    )
    client, page, form = open_run(console)
    assert "Not shown: 2 of 4 files." in page
    assert "line 1999" not in page
    answer = console.post(client, form)
    assert answer.status_code == 403
    assert "was not shown to you" in answer.text
    assert "src/big.py was not shown; src/a.png was not shown" in answer.text
    assert "line 1999" in client.get(f"/runs/{console.run}?show=2").text
    assert "src/a.png was not shown" in console.post(client, form).text
    assert console.runs.decided == []
    client.get(f"/runs/{console.run}?show=3")
    assert console.post(client, form).status_code == 303


def test_what_one_browser_saw_counts_for_that_browser_only(console: Console) -> None:
    change(console, patch=patch_for("src/big.py", ["x"] * 2000), changed_files=("src/big.py",))
    one, two = console.signed_in(), console.signed_in()
    one.get(f"/runs/{console.run}?show=all")
    form = console.form(two.get(f"/runs/{console.run}").text)
    assert console.post(two, form).status_code == 403
    form = console.form(one.get(f"/runs/{console.run}").text)
    assert console.post(one, form).status_code == 303


def test_what_was_seen_of_an_older_change_does_not_count(console: Console) -> None:
    change(console, patch=patch_for("src/big.py", ["x"] * 2000), changed_files=("src/big.py",))
    client, _, form = open_run(console, "?show=all")
    change(console, patch=patch_for("src/big.py", ["y"] * 2000), changed_files=("src/big.py",))
    assert console.post(client, form).status_code == 403
    assert console.runs.decided == []


def test_rejecting_does_not_need_everything_to_be_seen(console: Console) -> None:
    change(console, patch=patch_for("src/big.py", ["x"] * 2000), changed_files=("src/big.py",))
    client, _, form = open_run(console)
    assert console.post(client, form | {"choice": "reject"}).status_code == 303


@pytest.mark.parametrize(
    ("patch", "files", "words"),
    [
        (
            PATCH,
            ("src/shop/cart.py", "tests/test_cart.py", "deploy/prod.yaml"),
            "deploy/prod.yaml changed, but the diff",
        ),
        (PATCH, ("src/shop/cart.py",), "tests/test_cart.py is in the diff, but not among"),
        (PATCH + b"garbage\n", ("src/shop/cart.py", "tests/test_cart.py"), "could not be read"),
        (PATCH + PATCH, ("src/shop/cart.py", "tests/test_cart.py"), "names the same file twice"),
        (b"x" * (17 << 20), ("src/shop/cart.py",), "more than the 16 MiB"),
        (b"", ("src/shop/cart.py",), "but the diff does not contain it"),
    ],
)
def test_what_no_page_can_show_cannot_be_approved(
    console: Console, patch: bytes, files: tuple[str, ...], words: str
) -> None:
    change(console, patch=patch, changed_files=files)
    client, page, form = open_run(console, "?show=all")
    assert words in page
    answer = console.post(client, form)
    assert answer.status_code == 403
    assert words in answer.text
    assert console.runs.decided == []


def test_a_closed_gate_takes_no_decision(console: Console) -> None:
    client, _, form = open_run(console)
    assert console.post(client, form).status_code == 303
    again = console.post(client, form)
    assert again.status_code == 409
    assert "The gate is closed" in again.text
    assert len(console.runs.decided) == 1
    assert 'name="seen"' not in again.text


def test_waiting_never_approves(console: Console) -> None:
    client, _, form = open_run(console)
    console.moment = NOW + timedelta(days=8)
    answer = console.post(client, form)
    assert answer.status_code == 409
    assert "expired" in answer.text
    assert console.runs.decided == []


def test_the_requester_gets_no_form(console: Console) -> None:
    gate = sample_view(console.run).gate
    assert gate is not None
    change(console, requester=ALICE.id, gate=gate.model_copy(update={"requester": ALICE.id}))
    client, page, form = open_run(console)
    assert "You requested this run" in page
    assert "seen" not in form
    assert console.post(client, form | {"form_token": form["form_token"]}).status_code == 409


def test_a_person_who_may_not_decide_reads_why(console: Console) -> None:
    change(console, standing=Standing(may=False, reason="Only group:maintainers decides here, and you are not in it."))
    client, page, form = open_run(console)
    assert "Only group:maintainers decides here" in page
    assert console.post(client, form).status_code == 409
    assert console.runs.decided == []


def test_self_review_is_announced(console: Console) -> None:
    change(console, standing=Standing(may=True, reason="you requested this run.", self_review=True))
    _, page, _ = open_run(console)
    assert "recorded as a self-review" in page


@pytest.mark.parametrize("state", [state for state in State if state is not State.AWAITING_REVIEW])
def test_only_a_run_that_waits_for_review_is_decided(console: Console, state: State) -> None:
    client, _, form = open_run(console)
    change(console, state=state)
    assert console.post(client, form).status_code == 409
    assert console.runs.decided == []


def test_a_refusal_of_policy_shows_what_to_do_and_keeps_the_words(console: Console) -> None:
    client, _, form = open_run(console)
    console.runs.decide_fails = Refused(refused_example())
    answer = console.post(client, form)
    assert answer.status_code == 403
    for words in ("context.write.scope", "outside of what the task may write", "Widen `write`", form["reason"]):
        assert words in answer.text


def test_a_broken_dependency_decides_nothing_and_says_so(console: Console) -> None:
    client, _, form = open_run(console)
    console.runs.decide_fails = DependencyDown("audit", "The audit log cannot be written.", person="Free some space.")
    answer = console.post(client, form)
    assert answer.status_code == 503
    assert "The audit log cannot be written." in answer.text
    assert "Free some space." in answer.text
    console.runs.decide_fails = UsageError("Not like this.", next_step="Like that.")
    assert console.post(client, form).status_code == 400
    assert console.runs.decided == []


def test_broken_storage_is_a_message_and_never_an_empty_list(console: Console) -> None:
    client, _, form = open_run(console)
    console.runs.broken = DependencyDown("database", "The database cannot be read.", person="Repair it.")
    for answer in (client.get("/"), client.get(f"/runs/{console.run}"), console.post(client, form)):
        assert answer.status_code == 503
        assert "The database cannot be read." in answer.text
        assert "No run yet" not in answer.text
    assert console.runs.decided == []


def test_a_bug_shows_no_internals(console: Console) -> None:
    client = console.signed_in(raise_errors=False)
    form = console.form(client.get(f"/runs/{console.run}").text)
    console.runs.decide_fails = RuntimeError("secret detail")
    answer = console.post(client, form)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "vestibule show" in answer.text


@pytest.mark.parametrize("run", ["r00000000000000", "nothing", "..%2f..%2fetc", "r%00", "%F0%9F%92%A9"])
def test_an_unknown_run_is_a_plain_404(console: Console, run: str) -> None:
    answer = console.signed_in().get(f"/runs/{run}")
    assert answer.status_code == 404
    assert "There is no such page or run." in answer.text
