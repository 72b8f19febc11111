"""Links inside the tree are followed on paper: both ends are decided, and nothing outside is ever reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from context_fake import Endpoint, make_endpoint, make_view
from hypothesis import given
from hypothesis import strategies as st

from vestibule.boundary.context.links import leads_to
from vestibule.core.text.paths import normalise_path
from vestibule.core.view import View, ViewFile

Make = Callable[[dict[str, str]], Endpoint]


@pytest.fixture
def linked(folder: Path, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Endpoints over a folder with links (path → what it says), all of which are links of the view."""
    made: list[Endpoint] = []

    def make(links: dict[str, str]) -> Endpoint:
        (folder / "docs/v2").mkdir(exist_ok=True)
        (folder / "src/v2").mkdir(exist_ok=True)
        (folder / "src/v2/guide.py").write_text("second edition\n")
        for path, target in links.items():
            (folder / path).symlink_to(target)
        view = make_view(folder)
        files = [item for item in view.files if item.path not in links]
        files += [ViewFile(path=path, mode="120000", blob="0" * 40, size=1) for path in links]
        shown = view.model_copy(update={"files": tuple(files)})
        monkeypatch.setattr("context_fake.make_view", lambda _: shown)
        endpoint = make_endpoint(folder, loop)
        made.append(endpoint)
        return endpoint

    yield make
    for endpoint in made:
        endpoint.workspace.close()


def test_a_link_whose_target_is_in_scope_is_read_and_both_ends_are_decided(linked: Make) -> None:
    endpoint = linked({"src/latest": "v2"})
    answer = endpoint.call("read_file", path="src/latest/guide.py")
    content = answer.json["result"]["content"]
    assert content[0]["text"] == "second edition\n"
    assert "src/latest/guide.py is a link; this is src/v2/guide.py." in content[1]["text"]
    assert [event.resource for event in endpoint.log.intents()] == ["src/latest/guide.py", "src/v2/guide.py"]
    assert endpoint.call("list_files", path="src/latest").text == "src/v2/guide.py\t15"
    assert endpoint.call("search_files", path="src/latest", query="edition").text == "src/v2/guide.py:1: second edition"
    assert endpoint.call("read_file", path="src/v2/guide.py").json["result"]["content"][0]["text"] == "second edition\n"


def test_chains_of_links_are_followed_and_rings_are_not(linked: Make) -> None:
    endpoint = linked({"src/a": "b", "src/b": "./v2/../v2", "src/ring": "gnir", "src/gnir": "ring"})
    assert "second edition" in endpoint.call("read_file", path="src/a/guide.py").text
    assert endpoint.call("read_file", path="src/ring").refusal["rule"] == "path.link"


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("../secret/key.txt", "context.read.scope"),
        ("CLAUDE.md", "context.read.control_file"),
        ("../../outside.txt", "path.link"),
        ("/etc/passwd", "path.link"),
        ("../.git/HEAD", "path.link"),
        ("../src/greet.py\\..\\x", "path.link"),
    ],
)
def test_a_link_to_what_may_not_be_read_is_refused(linked: Make, target: str, rule: str) -> None:
    endpoint = linked({"src/link": target})
    found = endpoint.call("read_file", path="src/link").refusal
    assert found["rule"] == rule
    assert "classified" not in str(found)


def test_a_link_that_may_not_be_read_is_not_looked_at(linked: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = linked({"secret/link": "../src/greet.py"})
    looked: list[str] = []
    monkeypatch.setattr(type(endpoint.workspace), "read_link", lambda _, path: looked.append(path) or "")
    assert endpoint.call("read_file", path="secret/link").refusal["rule"] == "context.read.scope"
    assert endpoint.call("list_files", path="secret/link").refusal["rule"] == "context.read.scope"
    assert looked == []


def test_a_link_that_a_process_made_is_refused(linked: Make) -> None:
    endpoint = linked({})
    (endpoint.folder / "src/own").symlink_to("greet.py")
    assert endpoint.call("read_file", path="src/own").refusal["rule"] == "path.link"


def test_nothing_is_written_through_a_link(linked: Make) -> None:
    endpoint = linked({"src/latest": "v2", "src/one": "greet.py"})
    for path in ("src/latest/guide.py", "src/one"):
        assert endpoint.call("write_file", path=path, content="x").refusal["rule"] == "path.link"


def test_a_link_exchanged_after_the_decision_reaches_nothing_undecided(
    linked: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = linked({"src/latest": "v2"})
    real = type(endpoint.workspace).read_link

    def exchanged(self: Any, path: str) -> str:
        said = real(self, path)
        (endpoint.folder / "src/v2").rename(endpoint.folder / "src/v1")
        (endpoint.folder / "src/v2").symlink_to("../secret")
        return said

    monkeypatch.setattr(type(endpoint.workspace), "read_link", exchanged)
    (endpoint.folder / "secret/guide.py").write_text("classified\n")
    answer = endpoint.call("read_file", path="src/latest/guide.py")
    assert answer.refusal["rule"] == "path.link"
    assert b"classified" not in answer.body


SEGMENT = st.sampled_from(["a", "b", "..", ".", "c.py", "", ".git", "a\\b", "\u202e", "con"])
TARGET = st.lists(SEGMENT, max_size=6).map("/".join)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), st.dictionaries(TARGET, TARGET))
def test_where_a_link_leads_is_always_a_normal_path(path: str, links: dict[str, str]) -> None:
    found = leads_to(path, links, lambda name: links[name])
    assert found is None or normalise_path(found) == found


def test_a_views_links_are_known_by_their_mode() -> None:
    from vestibule.boundary.context.rights import Rights
    from vestibule.core.model import Scope

    files = (
        ViewFile(path="a", mode="120000", blob="0" * 40, size=1),
        ViewFile(path="b", mode="100644", blob="0" * 40, size=1),
    )
    view = View(base_commit="0" * 40, files=files, omitted=0, writable=())
    assert Rights.of(Scope(read=("**",), write=()), view).links == {"a"}
