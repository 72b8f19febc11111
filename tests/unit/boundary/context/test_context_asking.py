"""What an agent asks people: held, answered, taken up at once; and what it never learns by asking."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from context_fake import TOOLS, Endpoint, make_endpoint, make_task, make_view

from vestibule.boundary.context import rules
from vestibule.core.canonical import digest
from vestibule.core.errors import Refused
from vestibule.core.labels import Label
from vestibule.core.model import Bound, Person, Question, QuestionKind
from vestibule.core.refusal import refusal
from vestibule.core.verdict import Ruling
from vestibule.policy import PolicySet

ASKING = (*TOOLS, "request_scope", "report_block")


class FakeQuestions:
    """Rows in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Question] = {}
        self.broken: Exception | None = None
        self.answered = threading.Condition()
        self.limit = 50

    def ask(self, kind: QuestionKind, asked: Mapping[str, Any], why: str, *, labels: Label) -> Question:
        if self.broken:
            raise self.broken
        found = self.find(kind, asked)
        if found is not None:
            return found
        if len(self.rows) >= self.limit:
            raise Refused(refusal("question.limit", "Too much was asked.", agent="Go on.", person="Answer."))
        question = Question(
            id=f"q{len(self.rows) + 1:013}",
            run="r00000000000000",
            round=1,
            attempt=1,
            kind=kind,
            asked=dict(asked),
            why=why,
            digest=digest({"kind": kind, "asked": dict(asked)}),
            labels=labels,
            requester="local:ada",
            eligible=(),
            self_approval="never",
            opened="2026-01-01T00:00:00.000Z",
            expires="2026-01-02T00:00:00.000Z",
        )
        self.rows[question.id] = question
        return question

    def find(self, kind: QuestionKind, asked: Mapping[str, Any]) -> Question | None:
        if self.broken:
            raise self.broken
        wanted = digest({"kind": kind, "asked": dict(asked)})
        return next((item for item in self.rows.values() if item.digest == wanted), None)

    def wait(self, question: str, seconds: float) -> Question:
        if self.broken:
            raise self.broken
        with self.answered:
            self.answered.wait_for(lambda: self.rows[question].state != "open", seconds)
        return self.rows[question]

    def answer(self, question: str, state: str, reason: str = "") -> None:
        person = Person(id="local:grace", how="uid")
        with self.answered:
            update = {"state": state, "reason": reason, "person": person}
            self.rows[question] = self.rows[question].model_copy(update=update)
            self.answered.notify_all()


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicySet]:
    found = PolicySet.load()
    yield found
    found.close()


@pytest.fixture
def questions() -> FakeQuestions:
    return FakeQuestions()


@pytest.fixture
def asking(
    folder: Path, loop: asyncio.AbstractEventLoop, policy: PolicySet, questions: FakeQuestions
) -> Iterator[Endpoint]:
    found = _endpoint(folder, loop, policy, questions)
    yield found
    found.app.close()


def _endpoint(folder: Path, loop: Any, policy: PolicySet, questions: Any, **scope: Any) -> Endpoint:
    task = make_task(tools=ASKING, **scope)
    found = make_endpoint(folder, loop, task=task, questions=questions)
    found.app._crossing.decider = policy
    return found


def _widen(endpoint: Endpoint, *globs: str) -> None:
    scope = endpoint.task.scope.model_copy(update={"granted_read": globs})
    view = make_view(endpoint.folder)
    hidden = [item for item in sorted(endpoint.folder.rglob("*")) if "secret" in item.parts and item.is_file()]
    file = view.files[0]
    more = [file.model_copy(update={"path": str(item.relative_to(endpoint.folder))}) for item in hidden]
    endpoint.app.widen(scope, view.model_copy(update={"files": (*view.files, *more)}))


def test_a_request_waits_for_a_person_and_the_same_call_shows_the_answer(
    asking: Endpoint, questions: FakeQuestions
) -> None:
    call = {"paths": ["secret/*.txt"], "why": "The key's format is needed."}
    first = asking.call("request_scope", **call).refusal
    assert first["rule"] == "scope.request"
    (row,) = questions.rows.values()
    assert row.id in first["next"]["agent"]
    assert (row.kind, row.asked, row.why) == ("scope", {"paths": ["secret/*.txt"], "access": "read"}, call["why"])
    assert asking.call("request_scope", **call).refusal["next"] == first["next"]
    assert asking.call("read_file", path="secret/key.txt").status == 403
    questions.answer(row.id, "granted", "Fine for this one.")
    _widen(asking, "secret/*.txt")
    answer = asking.call("request_scope", **call)
    assert answer.status == 200
    assert "Fine for this one." in answer.text
    assert "secret/key.txt" in answer.text
    assert "classified" in asking.call("read_file", path="secret/key.txt").text
    assert "secret/key.txt" in asking.call("list_files").text
    assert "secret/key.txt" in asking.call("search_files", query="classified").text
    assert "secret/*.txt" in json.loads(asking.call("get_task").text)["scope"]["read"]


def test_a_refusal_by_a_person_is_shown_with_their_reason_and_stays(asking: Endpoint, questions: FakeQuestions) -> None:
    call = {"paths": ["infra/"], "why": "To see the ports."}
    asking.call("request_scope", **call)
    questions.answer("q0000000000001", "refused", "Ports are in docs/guide.md.\u202e")
    found = asking.call("request_scope", **call).refusal
    assert found["rule"] == "scope.refused"
    assert "Ports are in docs/guide.md.⟦U+202E⟧" in found["fact"]
    assert "grace" not in json.dumps(found)
    assert asking.log.intents()[-1].verdict is Ruling.DENY


def test_the_answer_is_waited_for_and_taken_up_in_the_same_call(asking: Endpoint, questions: FakeQuestions) -> None:
    def person() -> None:
        with questions.answered:
            pass
        while not questions.rows:
            threading.Event().wait(0.005)
        _widen(asking, "secret/**")
        questions.answer(next(iter(questions.rows)), "granted")

    thread = threading.Thread(target=person)
    thread.start()
    answer = asking.call("request_scope", paths=["secret/"], why="Needed.", wait_seconds=30)
    thread.join()
    assert answer.status == 200, answer.body
    assert "secret/key.txt" in answer.text
    assert [event.verdict for event in asking.log.intents()] == [Ruling.HOLD, Ruling.ALLOW]


def test_waiting_without_an_answer_ends_with_the_question(asking: Endpoint) -> None:
    found = asking.call("request_scope", paths=["secret/"], why="Needed.", wait_seconds=1).refusal
    assert "q0000000000001" in found["next"]["agent"]


def test_few_calls_wait_and_the_end_of_the_run_ends_their_waiting(
    asking: Endpoint, questions: FakeQuestions, loop: asyncio.AbstractEventLoop
) -> None:
    app = asking.app

    async def work() -> list[bool]:
        question = questions.ask("scope", {"paths": ["a"], "access": "read"}, "x", labels=Label())
        waits = [asyncio.ensure_future(app._answer_comes(question.id, 50)) for _ in range(app._limits.waiting_answers)]
        await asyncio.sleep(0)
        assert await app._answer_comes(question.id, 50) is False
        await loop.run_in_executor(None, app.close)
        return list(await asyncio.gather(*waits, return_exceptions=True))

    assert all(found is not True for found in loop.run_until_complete(asyncio.wait_for(work(), 10)))


BEYOND = (Bound(by="organisation", read=("src/**", "docs/**"), write=("src/**",)),)


def test_a_request_beyond_the_ceiling_is_byte_for_byte_like_any_other(
    folder: Path, loop: asyncio.AbstractEventLoop, policy: PolicySet
) -> None:
    answers = []
    for bounds in ((), BEYOND):
        for path in ("infra/a.tf", "doc2/ab.md", "does/no.xx"):
            endpoint = _endpoint(folder, loop, policy, FakeQuestions(), bounds=bounds)
            endpoint.ids[0] = 0
            answer = endpoint.call("request_scope", paths=[path], why="Needed for the task.")
            assert answer.status == 403
            event = endpoint.log.events[-1].model_dump(exclude={"resource", "input_digest", "details"})
            answers.append((answer.headers, answer.body.replace(path.encode(), b"PATH"), event))
            endpoint.app.close()
    assert all(item == answers[0] for item in answers)


def test_no_ceiling_is_in_anything_an_agent_is_told(
    folder: Path, loop: asyncio.AbstractEventLoop, policy: PolicySet, questions: FakeQuestions
) -> None:
    bounds = (Bound(by="organisation", read=("src/**", "zz-ceiling/**"), write=("zz-ceiling/**",)),)
    endpoint = _endpoint(folder, loop, policy, questions, bounds=bounds)
    for answer in (
        endpoint.call("get_task"),
        endpoint.call("list_files"),
        endpoint.call("read_file", path="docs/guide.md"),
        endpoint.call("write_file", path="src/greet.py", content=""),
        endpoint.call("request_scope", paths=["docs/"], why="Needed."),
        endpoint.rpc("tools/list"),
    ):
        assert b"zz-ceiling" not in answer.body
        assert b"organisation" not in answer.body
    endpoint.app.close()


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        (["../x"], "path.traversal"),
        (["src/**", "/etc/*"], "path.absolute"),
        ([".git/**"], "path.git"),
        (["a/%2e%2e/**"], "path.encoded"),
        (["src/\u200b*.py"], "path.invisible"),
        (["a\\*"], "path.backslash"),
        (["{a,../b}/*"], "path.trailing"),
    ],
)
def test_path_tricks_in_a_request_are_403_and_ask_nobody(
    asking: Endpoint, questions: FakeQuestions, paths: list[str], rule: str
) -> None:
    assert asking.call("request_scope", paths=paths, why="Needed.").refusal["rule"] == rule
    assert questions.rows == {}
    assert asking.log.events[-1].action == "scope.request"


def test_a_request_without_a_reason_is_refused(asking: Endpoint, questions: FakeQuestions) -> None:
    assert asking.call("request_scope", paths=["lib/"], why=" ").refusal["rule"] == "scope.no_reason"
    assert questions.rows == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"paths": [], "why": "x"},
        {"paths": ["a"], "why": "x", "access": "admin"},
        {"paths": ["a"], "why": "x", "wait_seconds": 51},
        {"paths": ["a" for _ in range(33)], "why": "x"},
        {"paths": ["{a,b"], "why": "x", "extra": 1},
        {"paths": ["!a"], "why": "x"},
        {"paths": ["src/greet.py"], "why": "x"},
    ],
)
def test_requests_that_make_no_sense_are_explained(
    asking: Endpoint, questions: FakeQuestions, arguments: dict[str, Any]
) -> None:
    answer = asking.call("request_scope", **arguments)
    assert answer.status == 200
    assert answer.failed
    assert questions.rows == {}


def test_one_question_whatever_the_order_and_spelling(asking: Endpoint, questions: FakeQuestions) -> None:
    asking.call("request_scope", paths=["lib/a.py", "/workspace/x/"], why="A.")
    asking.call("request_scope", paths=["x//**", "./lib/a.py", "lib/a.py"], why="B.")
    assert [row.asked["paths"] for row in questions.rows.values()] == [["lib/a.py", "x/**"]]


def test_broken_questions_are_a_refusal_that_is_in_the_log(asking: Endpoint, questions: FakeQuestions) -> None:
    questions.broken = RuntimeError("database")
    found = asking.call("request_scope", paths=["lib/"], why="Needed.").refusal
    assert found["rule"] == "dependency.questions"
    assert asking.log.events[-1].verdict is Ruling.DENY
    assert asking.call("report_block", what="x", why="y").refusal["rule"] == "dependency.questions"


def test_a_report_is_kept_for_people_and_changes_nothing(asking: Endpoint, questions: FakeQuestions) -> None:
    answer = asking.call("report_block", what="read_file infra/a.tf: context.read.scope", why="The task names it.")
    assert answer.status == 200
    (row,) = questions.rows.values()
    assert (row.kind, row.asked["what"]) == ("block", "read_file infra/a.tf: context.read.scope")
    assert [event.action for event in asking.log.intents()] == ["context.call"]
    questions.limit = 1
    assert asking.call("report_block", what="other", why="x").refusal["rule"] == "question.limit"


def test_a_role_without_the_tools_cannot_ask(endpoint: Endpoint) -> None:
    assert endpoint.call("report_block", what="x", why="y").refusal["rule"] == "context.tool"
    names = [tool["name"] for tool in endpoint.rpc("tools/list").json["result"]["tools"]]
    assert "request_scope" not in names


def test_roles_are_offered_both_by_default() -> None:
    from vestibule.config.schema import TOOLS as DEFAULT

    assert {"request_scope", "report_block"} <= set(DEFAULT)


def test_calls_under_way_end_under_the_scope_they_were_decided_by(asking: Endpoint) -> None:
    before = asking.app._toolbox
    _widen(asking, "secret/**")
    assert before.rights.readable("secret/key.txt") is False
    assert asking.app._toolbox.rights.readable("secret/key.txt") is True
    assert asking.app._crossing.task["read"][-1] == "secret/**"


def test_of_a_list_of_paths_no_more_are_read_than_may_be_asked_for(
    asking: Endpoint, questions: FakeQuestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(text: str) -> str:
        read.append(text)
        return text

    monkeypatch.setattr(rules, "_asked_path", noted)
    answer = asking.call("request_scope", paths=[f"{{a,b}}{number}" for number in range(5000)], why="All of it.")
    assert answer.failed
    assert len(read) <= 32
    assert questions.rows == {}
