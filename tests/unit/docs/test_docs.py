"""The documentation says what the code does: tables, links, commands, configuration and test names are checked here."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in TOP)]
FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """(what stands behind the opening mark, the text) of each code block."""
    for match in FENCE.finditer(page.read_text("utf-8")):
        yield match.group(1).strip(), match.group(2)


# --- tables from the code ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_docs", ROOT / "tools" / "gen_docs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gen_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_every_table_agrees_with_the_code(generator: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in generator.pages().items() if path.read_text("utf-8") != text]
    assert not stale, f"run tools/gen_docs.py: {', '.join(stale)}"


def test_every_table_is_on_a_page(generator: ModuleType) -> None:
    used = {
        name for page in PAGES for name in re.findall(r"<!-- from the code: ([a-z-]+) -->", page.read_text("utf-8"))
    }
    assert used == set(generator.BLOCKS)


def test_a_page_that_disagrees_is_found(generator: ModuleType) -> None:
    page = DOCS / "reference" / "fail-modes.md"
    text = page.read_text("utf-8").replace("dependency.audit", "dependency.nothing")
    assert generator._BLOCK.sub(generator._fill, text) == page.read_text("utf-8")


# --- links ------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as the site makes them."""
    from markdown.extensions.toc import slugify

    text = FENCE.sub("", page.read_text("utf-8"))
    return {slugify(heading.replace("`", ""), "-") for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_the_navigation() -> None:
    import yaml

    def leaves(node: object) -> Iterator[str]:
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            if isinstance(item, str):
                yield item
            else:
                yield from leaves(item)

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(leaves(nav)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_site_loads_nothing_from_elsewhere() -> None:
    import yaml

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert site["theme"]["font"] is False
    assert "analytics" not in str(site)
    assert "://" not in (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in PAGES:
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(?:script|img|iframe|link)\b", page.read_text("utf-8")), page


def test_pictures_are_small_and_used() -> None:
    said = "".join(page.read_text("utf-8") for page in PAGES) + (ROOT / "mkdocs.yml").read_text("utf-8")
    for picture in (DOCS / "img").iterdir():
        assert picture.stat().st_size < 300_000, picture
        assert f"img/{picture.name}" in said, picture


# --- commands ---------------------------------------------------------------------------------------------------


def shown_commands() -> Iterator[tuple[str, str]]:
    """(page, command line) of every `vestibule …` in a shell block or in inline code."""
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [
            line.strip() for kind, block in fences(page) if kind in ("sh", "yaml", "") for line in block.split("\n")
        ]
        lines += re.findall(r"`(vestibule [^`\n]+)`", FENCE.sub("", text))
        for line in lines:
            found = re.match(r"(?:- run: )?(vestibule [^#>|]+)", line)
            if found and "[" not in line:  # else it is a synopsis
                yield str(page.relative_to(ROOT)), found.group(1).strip()


@pytest.mark.parametrize(("page", "line"), sorted(set(shown_commands())))
def test_every_command_shown_is_one(page: str, line: str) -> None:
    from vestibule.cli.main import cli

    words = [word for word in shlex.split(line)[1:] if word not in ("…", "COMMAND")]
    if not words or words[0].startswith("-"):
        words = words or ["--help"]
        assert words[0] in ("--help", "--version"), line
        return
    command: click.Command | None = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None, f"{page}: {line}"
    if isinstance(command, click.Group) or command is None:
        return
    if "--help" in words:
        return
    with contextlib.suppress(click.MissingParameter):  # a command spoken of, not given whole
        command.make_context(command.name, words)


def test_a_command_that_is_none_would_be_found() -> None:
    from vestibule.cli.main import cli

    command = cli.get_command(click.Context(cli), "check")
    assert command
    with pytest.raises(click.NoSuchOption):
        command.make_context("check", ["--no-such-option"])


# --- configuration and policy -----------------------------------------------------------------------------------

EXAMPLES = [
    (f"{page.relative_to(ROOT)}:{number}", kind, text)
    for page in PAGES
    for number, (kind, text) in enumerate(fences(page))
    if "title=" in kind
]


@pytest.mark.parametrize(("kind", "text"), [item[1:] for item in EXAMPLES], ids=[item[0] for item in EXAMPLES])
def test_every_example_is_accepted(kind: str, text: str, tmp_path: Path) -> None:
    from vestibule.config.load import load_operator_config, load_repo_config
    from vestibule.cost.price_overlay import overlay
    from vestibule.policy.layers import folder_layer
    from vestibule.policy.lint import lint
    from vestibule.policy.testing import run_tests

    if '".vestibule/config.yaml"' in kind:
        load_repo_config(text.encode())
    elif '"operator"' in kind:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        load_operator_config({"VESTIBULE_CONFIG": str(path)})
    elif '"prices.yaml"' in kind:
        assert overlay(text.encode(), "prices.yaml")["providers"]
    elif kind.startswith("rego"):
        (tmp_path / "policy.rego").write_text(text)
        if "_test.rego" in kind:
            other = next(body for _, title, body in EXAMPLES if title == kind.replace("_test.rego", ".rego"))
            (tmp_path / "policy.rego").write_text(other)
            (tmp_path / "policy_test.rego").write_text(text)
        layer = folder_layer("folder", tmp_path)
        assert not lint(layer)
        if "_test.rego" in kind:
            results = run_tests(layer)
            assert results
            assert all(result.passed for result in results), results
    else:
        pytest.fail(f"an example of an unknown kind: {kind}")


def test_there_are_examples_of_each_kind() -> None:
    kinds = {"repository" if ".vestibule" in k else "operator" if "operator" in k else "rego" for _, k, _ in EXAMPLES}
    assert kinds == {"repository", "operator", "rego"}


def test_the_script_shown_is_one() -> None:
    from vestibule.boundary.models.scripted.script import load_script

    shown = [text for kind, text in fences(DOCS / "reference" / "scripted-provider.md") if kind == "yaml"]
    assert shown
    for text in shown:
        load_script(text.encode(), "script.yaml")


def test_json_shown_is_json() -> None:
    import json

    for page in PAGES:
        for kind, text in fences(page):
            if kind == "json":
                json.loads(text)


# --- tests that are named ---------------------------------------------------------------------------------------


def named_tests() -> list[str]:
    from vestibule.pipeline.fail_modes import FAIL_MODES

    said = "".join(page.read_text("utf-8") for page in PAGES)
    return sorted({*re.findall(r"`(tests/[\w./:-]+)`", said), *(row.tested_by for row in FAIL_MODES)})


@pytest.mark.parametrize("name", named_tests())
def test_every_test_named_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert (ROOT / file).exists(), name
    if function:
        assert re.search(rf"^\s*(?:async )?def {re.escape(function)}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)


# --- words ------------------------------------------------------------------------------------------------------


def test_pages_name_no_place_of_a_machine_and_no_index() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert not re.search(r"/(?:work|root)/|\.venv/lib|pypi\.|registry\.npmjs|files\.pythonhosted", text), page
