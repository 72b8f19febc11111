"""What questions and their answers promise, through the database and the crossing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from question_world import Asking
from review_world import AGENT, BOB, CAROL, REQUESTER, RUN
from sqlalchemy import create_engine, text

from vestibule.core.errors import DependencyDown, Refused, UsageError, VerificationFailed
from vestibule.core.labels import Confidentiality, Integrity, Label
from vestibule.core.model import Question
from vestibule.core.verdict import Ruling, Verdict
from vestibule.review import question_rules as rules
from vestibule.review.questions import QuestionBook, any_answers
from vestibule.review.signing import ReviewKey
from vestibule.store.database import SCHEMA_VERSION, Database


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.database.close()


def rule_of(act: Any) -> str:
    with pytest.raises(Refused) as refused:
        act()
    assert refused.value.refusal.next.person
    return refused.value.refusal.rule


def execute(asking: Asking, statement: str, **values: Any) -> None:
    with asking.database.write() as connection:
        connection.execute(text(statement), values)


# --- asking -------------------------------------------------------------------------------------------------


def test_the_ask_is_in_the_log_before_it_is_a_row(asking: Asking) -> None:
    seen: list[tuple[str, int]] = []
    asking.log.before = lambda event: seen.append((event.phase, len(asking.book.of_run(RUN))))
    question = asking.ask("lib/a.py")
    assert seen == [("intent", 0), ("outcome", 1)]
    intent, outcome = asking.log.events
    assert (intent.action, intent.resource, intent.subject) == ("question.ask", question.id, "system")
    assert intent.details["digest"] == question.digest == rules.question_digest(question)
    assert outcome.result == "ok"


def test_a_question_that_cannot_be_recorded_is_not_asked(asking: Asking) -> None:
    asking.log.broken = True
    with pytest.raises(DependencyDown) as down:
        asking.ask()
    assert down.value.name == "audit"
    assert asking.book.of_run(RUN) == ()


def test_the_same_content_asked_again_is_the_question_that_is_there(asking: Asking) -> None:
    first = asking.ask("lib/a.py", why="One.")
    again = asking.ask("lib/a.py", why="Another story.")
    assert (again.id, again.why) == (first.id, "One.")
    assert asking.ask("lib/a.py", access="write").id != first.id
    asking.answer(first, "refuse")
    assert asking.ask("lib/a.py").state == "refused"
    assert len(asking.book.of_run(RUN)) == 2


def test_numbers_and_their_texts_are_different_things_to_ask(asking: Asking) -> None:
    questions = asking.of_run()
    contents: list[Any] = [1, "1", 1.0, True, {"1": 1}, [1], None]
    ids = {questions.ask("call", {"arguments": item}, "", labels=Label()).id for item in contents}
    assert len(ids) == len(contents)


@pytest.mark.parametrize("content", [float("nan"), float("inf"), "\ud800"])
def test_what_has_no_plain_form_is_not_asked(asking: Asking, content: Any) -> None:
    ask = asking.of_run().ask
    assert rule_of(lambda: ask("call", {"arguments": content}, "", labels=Label())) == "question.asked"


def test_open_questions_are_bounded_and_answered_ones_make_room(asking: Asking) -> None:
    asked = [asking.ask(f"lib/{number}.py") for number in range(rules.MAX_OPEN)]
    assert rule_of(lambda: asking.ask("lib/more.py")) == "question.limit"
    assert asking.ask("lib/0.py").id == asked[0].id, "asking the same again is no new question"
    asking.answer(asked[0], "refuse")
    asking.ask("lib/more.py")


def test_a_run_asks_a_bounded_number_of_things(asking: Asking) -> None:
    for number in range(rules.MAX_ASKED):
        asking.answer(asking.ask(f"lib/{number}.py"), "refuse")
    events = len(asking.log.events)
    assert rule_of(lambda: asking.ask("lib/more.py")) == "question.limit"
    assert len(asking.log.events) == events, "what is refused for its number fills no log"
    asking.add_run("r0123456789abce")
    assert asking.ask("lib/more.py", run="r0123456789abce").state == "open"


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (("lib/a.py",), "x" * (rules.MAX_WHY + 1)),
        (tuple(f"lib/{number}" for number in range(rules.MAX_PATHS + 1)), "Many."),
        (("lib/" + "x" * rules.MAX_ASKED_BYTES,), "Long."),
    ],
)
def test_one_question_is_of_bounded_size(asking: Asking, paths: tuple[str, ...], why: str) -> None:
    assert rule_of(lambda: asking.ask(*paths, why=why)) == "question.limit"


def test_many_asking_at_once_keep_to_the_limit(asking: Asking) -> None:
    questions, refused = asking.of_run(), []

    def ask(number: int) -> None:
        try:
            questions.ask("scope", {"paths": [f"lib/{number}"], "access": "read"}, "Why.", labels=Label())
        except Refused as error:
            refused.append(error.refusal.rule)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(rules.MAX_OPEN + 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["question.limit"] * 5
    assert len(asking.book.open_of(RUN)) == rules.MAX_OPEN


# --- answering ----------------------------------------------------------------------------------------------


def test_a_grant_is_signed_recorded_and_decided_by_policy_first(asking: Asking) -> None:
    question = asking.ask()
    seen: list[tuple[str, str]] = []
    asking.log.before = lambda event: seen.append((event.phase, asking.book.must(question.id).state))
    answered = asking.answer(question).question
    assert seen == [("intent", "open"), ("outcome", "granted")]
    assert (answered.state, answered.person, answered.reason) == ("granted", BOB, "It may.")
    request = asking.policy.asked[-1]
    assert (request.action, request.resource["choice"], request.subject["kind"]) == (
        "question.answer", "grant", "person",
    )  # fmt: skip
    assert request.facts == {
        "is_agent": False,
        "is_requester": False,
        "self_approval": "never",
        "eligible": True,
        "binding_current": True,
        "expired": False,
        "open": True,
        "reason_given": True,
        "within_ceiling": True,
    }


def test_a_policy_that_denies_or_holds_is_obeyed(asking: Asking) -> None:
    question = asking.ask()
    for ruling in (Ruling.DENY, Ruling.HOLD):
        asking.policy.verdict = Verdict(ruling=ruling, reasons=("org.frozen",))
        assert rule_of(lambda: asking.answer(question)) == "org.frozen"
    assert asking.book.must(question.id).state == "open"


@pytest.mark.parametrize("broken", ["log", "database"])
def test_an_answer_that_cannot_be_kept_is_none(asking: Asking, broken: str) -> None:
    question = asking.ask()
    if broken == "log":
        asking.log.broken = True
    else:
        asking.log.before = lambda event: (
            execute(asking, "ALTER TABLE questions RENAME TO away") if event.phase == "intent" else None
        )
    with pytest.raises(DependencyDown):
        asking.answer(question)
    if broken == "database":
        execute(asking, "ALTER TABLE away RENAME TO questions")
    assert asking.book.must(question.id).state == "open"


@pytest.mark.parametrize("choice", ["grant", "refuse"])
@pytest.mark.parametrize("person", [AGENT, REQUESTER.model_copy(update={"id": "bot:ci"})])
def test_no_agent_answers(asking: Asking, person: Any, choice: str) -> None:
    question = asking.ask()
    assert rule_of(lambda: asking.answer(question, choice, person)) == "review.agent"
    assert asking.log.events[-1].subject == "agent"


def test_the_requester_refuses_and_does_not_grant_unless_that_is_recorded(asking: Asking) -> None:
    assert rule_of(lambda: asking.answer(asking.ask("lib/a.py"), "grant", REQUESTER)) == "review.self_approval"
    assert asking.answer(asking.ask("lib/b.py"), "refuse", REQUESTER).question.state == "refused"
    asking.terms = asking.terms.model_copy(update={"self_approval": "recorded"})
    own = asking.answer(asking.ask("lib/c.py"), "grant", REQUESTER).question
    assert (own.state, own.self_review) == ("granted", True)


def test_only_people_the_terms_name_answer(asking: Asking) -> None:
    asking.terms = asking.terms.model_copy(update={"eligible": ("local:bob",)})
    question = asking.ask()
    for choice in ("grant", "refuse"):
        assert rule_of(lambda choice=choice: asking.answer(question, choice, CAROL)) == "review.not_eligible"
    assert asking.answer(question).question.state == "granted"


@pytest.mark.parametrize("reason", ["", " ", "\u200b", "x" * 4001])
def test_an_answer_needs_a_reason_that_a_reader_can_see(asking: Asking, reason: str) -> None:
    question = asking.ask()
    assert rule_of(lambda: asking.answer(question, reason=reason)) == "review.no_reason"


def test_an_answer_to_another_question_than_the_one_seen_is_stale(asking: Asking) -> None:
    first, second = asking.ask("lib/a.py"), asking.ask("src/b.py")
    assert rule_of(lambda: asking.answer(second, seen=first.digest)) == "review.stale"
    assert rule_of(lambda: asking.answer(second, seen="")) == "review.stale"


def test_what_lies_beyond_the_ceiling_is_refused_to_the_person(asking: Asking) -> None:
    question = asking.ask("lib/a.py", "deploy/prod.yaml")
    assert rule_of(lambda: asking.answer(question)) == "scope.ceiling"
    assert asking.answer(question, "refuse").question.state == "refused"


def test_a_block_is_acknowledged_and_grants_nothing(asking: Asking) -> None:
    block = asking.of_run().ask("block", {"what": "read_file x"}, "Why?", labels=Label())
    assert rule_of(lambda: asking.answer(block)) == "scope.ceiling"
    assert asking.answer(block, "refuse").question.state == "closed"


def test_the_first_answer_stands_and_saying_it_again_changes_nothing(asking: Asking) -> None:
    question = asking.ask()
    asking.answer(question)
    events = len(asking.log.events)
    assert asking.answer(question).repeated
    assert len(asking.log.events) == events
    assert rule_of(lambda: asking.answer(question, "refuse")) == "review.closed"
    assert rule_of(lambda: asking.answer(question, "grant", CAROL)) == "review.closed"


def test_two_answers_at_the_same_moment_are_one(asking: Asking) -> None:
    question = asking.ask()
    done: list[object] = []

    def refuse_first(event: Any) -> None:
        if event.phase == "intent" and event.action == "question.answer" and not done:
            done.append(None)
            asking.answer(question, "refuse", CAROL)

    asking.log.before = refuse_first
    assert rule_of(lambda: asking.answer(question)) == "review.closed"
    assert asking.book.must(question.id).state == "refused"


def test_time_that_ran_out_grants_nothing(asking: Asking) -> None:
    question = asking.ask()
    asking.time.pass_(3600)
    assert rule_of(lambda: asking.answer(question)) == "review.expired"
    assert asking.book.must(question.id).state == "expired"
    assert asking.ask().state == "expired"


def test_a_run_that_has_ended_grants_nothing_more(asking: Asking) -> None:
    question = asking.ask()
    execute(asking, "UPDATE runs SET state='cancelled'")
    assert rule_of(lambda: asking.answer(question)) == "review.closed"
    [closed] = asking.book.close_of(RUN)
    assert closed.state == "closed"
    assert asking.book.waiting() == ()


def test_a_question_nobody_knows_is_a_usage_error(asking: Asking) -> None:
    with pytest.raises(UsageError):
        asking.book.must("q-none")
    with pytest.raises(UsageError):
        asking.of_run().wait("q-none", 0)


# --- by other hands -----------------------------------------------------------------------------------------


def forge(asking: Asking, question: Question, **changes: Any) -> None:
    """What somebody who writes to the database could make of a row."""
    import json

    document = {"question": {**question.model_dump(mode="json"), **changes}, "signature": None}
    state = str(changes.get("state", question.state))
    execute(
        asking,
        "UPDATE questions SET document=:d, state=:s WHERE id=:i",
        d=json.dumps(document, sort_keys=True, ensure_ascii=False),
        s=state,
        i=question.id,
    )


def test_a_row_that_says_granted_without_a_signed_answer_is_found(asking: Asking) -> None:
    question = asking.ask()
    forge(asking, question, state="granted", person={"id": "local:bob", "how": "uid", "groups": []}, reason="ok")
    for act in (lambda: asking.book.must(question.id), lambda: asking.of_run().find("scope", question.asked)):
        with pytest.raises(VerificationFailed):
            act()


def test_a_row_whose_question_was_changed_is_found(asking: Asking) -> None:
    question = asking.ask()
    for changes in (
        {"why": "Harmless."},
        {"asked": {"paths": ["lib/b.py"], "access": "read"}},
        {"self_approval": "recorded"},
    ):
        forge(asking, question, **changes)
        with pytest.raises(DependencyDown) as down:
            asking.book.must(question.id)
        assert down.value.name == "database"
    execute(asking, "UPDATE questions SET document='{}'")
    with pytest.raises(DependencyDown):
        asking.answer(question)


def test_an_answer_signed_by_another_key_is_found(asking: Asking) -> None:
    question = asking.ask()
    asking.answer(question)
    with pytest.raises(VerificationFailed):
        QuestionBook(asking.database, ReviewKey.new()).must(question.id)


def test_a_key_that_answers_were_signed_with_is_known_to_be_in_use(asking: Asking) -> None:
    question = asking.ask()
    assert not any_answers(asking.database)
    asking.answer(question, "refuse")
    assert any_answers(asking.database)


# --- what the agent is told -----------------------------------------------------------------------------------


def test_the_agent_learns_the_answer_and_never_who_gave_it_or_who_could(asking: Asking) -> None:
    asking.terms = asking.terms.model_copy(update={"eligible": ("local:bob",)})
    question = asking.ask()
    assert question.eligible == ()
    asking.answer(asking.book.must(question.id))
    told = asking.of_run().find("scope", question.asked)
    assert told is not None
    assert (told.state, told.reason) == ("granted", "It may.")
    assert (told.person, told.eligible, told.answered, told.self_review) == (None, (), "", False)


def test_a_grant_that_does_not_stand_is_told_as_open(asking: Asking) -> None:
    question = asking.ask()
    asking.answer(asking.book.must(question.id))
    asking.stands = False
    told = asking.of_run().wait(question.id, 0)
    assert (told.state, told.reason) == ("open", "")


def test_who_waits_is_told_as_soon_as_it_is_answered_and_never_waits_past_the_attempt(asking: Asking) -> None:
    questions = asking.of_run()
    question = questions.ask("scope", {"paths": ["lib/a.py"], "access": "read"}, "Why.", labels=Label())
    told: list[Question] = []
    waiter = threading.Thread(target=lambda: told.append(questions.wait(question.id, 60)))
    waiter.start()
    began = time.monotonic()
    asking.answer(asking.book.must(question.id), "refuse")
    questions.nudge()
    waiter.join(10)
    assert [item.state for item in told] == ["refused"]
    other = questions.ask("scope", {"paths": ["lib/b.py"], "access": "read"}, "Why.", labels=Label())
    waiter = threading.Thread(target=lambda: told.append(questions.wait(other.id, 60)))
    waiter.start()
    questions.close()
    waiter.join(10)
    assert told[-1].state == "open"
    assert time.monotonic() - began < 20


def test_another_runs_question_is_nobodys_to_wait_for(asking: Asking) -> None:
    asking.add_run("r0123456789abce")
    question = asking.ask(run="r0123456789abce")
    with pytest.raises(UsageError):
        asking.of_run().wait(question.id, 0)


def test_the_label_of_the_run_is_part_of_what_a_person_sees(asking: Asking) -> None:
    label = Label(integrity=Integrity.WEB, confidentiality=Confidentiality.SECRET)
    question = asking.of_run().ask("scope", {"paths": ["lib/a.py"], "access": "read"}, "Why.", labels=label)
    assert question.labels == label
    assert asking.log.events[0].labels == label


# --- the database of the version before ------------------------------------------------------------------------


def test_a_database_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    Database(url).close()
    old = create_engine(url)
    with old.begin() as connection:
        connection.execute(text("DROP TABLE questions"))
        connection.execute(text("UPDATE schema_version SET version=1"))
        connection.execute(text("INSERT INTO runs VALUES ('r0123456789abcd', 'x', 'x', 'x', 1, '{}')"))
    old.dispose()
    database = Database(url)
    with database.read() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalar_one() == SCHEMA_VERSION
        assert connection.execute(text("SELECT count(*) FROM questions")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar_one() == 1
    database.close()
    Database(url).close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    Database(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE schema_version SET version={SCHEMA_VERSION + 1}"))
    engine.dispose()
    with pytest.raises(DependencyDown):
        Database(url)
