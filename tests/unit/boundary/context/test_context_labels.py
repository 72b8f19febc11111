"""What a tool shows joins the run's label before it is shown, and a file shown in part is not written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from context_fake import Endpoint, make_endpoint, make_task

from vestibule.boundary.context.rights import Rights
from vestibule.boundary.context.rules import plan
from vestibule.core.labels import Confidentiality, Integrity, Label, LabelRule
from vestibule.core.model import Scope, ViewRule
from vestibule.core.view import View, ViewFile
from vestibule.policy import PolicySet

RULES = (
    LabelRule(paths=("src/deep/**",), integrity=Integrity.OUTSIDER),
    LabelRule(paths=("docs/**",), confidentiality=Confidentiality.SECRET),
)
DEEP = Label(integrity=Integrity.OUTSIDER, confidentiality=Confidentiality.INTERNAL)
DOCS = Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.SECRET)
PLAIN = Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.INTERNAL)


@pytest.fixture
def labelled(folder: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Endpoint]:
    found = make_endpoint(folder, loop, task=make_task(labels=RULES))
    yield found
    found.workspace.close()


@pytest.mark.parametrize(
    ("tool", "arguments", "label"),
    [
        ("read_file", {"path": "src/greet.py"}, PLAIN),
        ("read_file", {"path": "src/deep/er/mod.py"}, DEEP),
        ("read_file", {"path": "docs/guide.md"}, DOCS),
        ("list_files", {}, DEEP.join(DOCS)),
        ("search_files", {"query": "x"}, DEEP.join(DOCS)),
        ("run_command", {"argv": ["pytest"]}, DEEP.join(DOCS)),
        ("get_task", {}, Label()),
        ("write_file", {"path": "src/new.py", "content": "x"}, Label()),
    ],
)
def test_what_a_tool_shows_is_in_the_label_of_the_durable_intent(
    labelled: Endpoint, tool: str, arguments: dict[str, Any], label: Label
) -> None:
    labelled.call(tool, **arguments)
    assert labelled.app._crossing.labels.current == label
    intent = next(event for event in labelled.log.events if event.phase == "intent")
    assert intent.labels == label


def test_a_label_never_falls_and_later_decisions_see_it(labelled: Endpoint) -> None:
    labelled.call("read_file", path="docs/guide.md")
    labelled.call("read_file", path="src/deep/er/mod.py")
    labelled.call("get_task")
    assert labelled.policy.asked[-1].labels == {"integrity": "outsider", "confidentiality": "secret"}
    assert labelled.log.events[-1].labels == DEEP.join(DOCS)


def test_a_refused_read_adds_nothing(labelled: Endpoint) -> None:
    labelled.call("read_file", path="secret/key.txt")
    assert labelled.app._crossing.labels.current == Label()


def _rights(*partial: str) -> Rights:
    files = tuple(ViewFile(path=path, mode="100644", blob="0" * 40, size=1, partial=True) for path in partial)
    scope = Scope(
        read=("**",),
        write=("**",),
        tools=("read_file", "write_file", "apply_patch"),
        views=(ViewRule(paths=("data/**",), show="schema"),),
    )
    return Rights.of(scope, View(base_commit="0" * 40, files=files, omitted=0, writable=("**",)))


@pytest.fixture(scope="module")
def policy() -> Iterator[PolicySet]:
    found = PolicySet.load()
    yield found
    found.close()


PATCH = "--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n-x\n+y\n"
DELETION = "--- a/{0}\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"


@pytest.mark.parametrize("path", ["data/a.json", "./data/a.json", "/workspace/data//a.json", "DATA/A.JSON"])
@pytest.mark.parametrize("form", ["write_file", PATCH, DELETION])
def test_a_file_shown_in_part_is_not_written(policy: PolicySet, path: str, form: str) -> None:
    from vestibule.core.ports import PolicyInput

    if form == "write_file":
        call = plan("write_file", {"path": path, "content": "x"}, _rights("data/a.json"))
    else:
        call = plan("apply_patch", {"patch": form.format(path)}, _rights("data/a.json"))
    (step,) = call.steps
    assert step.facts["partial"] is True
    request = PolicyInput(
        action=step.action, subject={"id": "a", "kind": "agent"}, resource=step.resource, facts=step.facts
    )
    verdict = policy.decide(request)
    assert verdict.reasons == ("context.write.partial",)
    assert verdict.refusals[0].rule == "context.write.partial"


def test_whether_a_file_that_is_not_shown_exists_is_not_told_by_a_write() -> None:
    """A new file and one that could not be shown in part are the same to the gateway; the export knows."""
    for path in ("data/new.json", "data/could-not-be-shown.json"):
        (step,) = plan("write_file", {"path": path, "content": "x"}, _rights("data/a.json")).steps
        assert step.facts["partial"] is False
        assert step.facts["in_read_or_new"] is True


def test_reading_a_file_shown_in_part_says_so(endpoint: Endpoint) -> None:
    files = tuple(
        item.model_copy(update={"partial": True}) if item.path == "src/greet.py" else item
        for item in endpoint.view.files
    )
    endpoint.app.widen(endpoint.task.scope, endpoint.view.model_copy(update={"files": files}))
    assert "This is a view of the file" in endpoint.call("read_file", path="src/greet.py").text
    assert "This is a view" not in endpoint.call("read_file", path="tests/test_greet.py").text
