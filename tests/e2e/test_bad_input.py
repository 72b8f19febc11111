"""Bad input ends by the contract: its exit code, a sentence that helps, nothing lost, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, Done, House


def helped(done: Done, code: int = 2) -> dict[str, object]:
    assert done.code == code, (done.code, done.out, done.err)
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    error = json.loads(done.out)["error"]
    assert error["what"]
    assert error["next"] or error["why"]
    return dict(error)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"   \n\n", b"\x00\x01\x02binary", b"\xff\xfe\x00bad", b"!!python/object/apply:os.system ['id']"],
    ids=["missing", "empty", "blank", "binary", "not UTF-8", "yaml tag"],
)
def test_ticket_that_is_none(house: House, content: bytes | None) -> None:
    path = house.folder / ("t.yaml" if content and content.startswith(b"!!") else "t.md")
    if content is not None:
        path.write_bytes(content)
    helped(house.run("--agent", "command", "--", "true", ticket=str(path)))
    assert not list(house.home.glob("runs/*")), "nothing is written before the call is known to be possible"


def test_ticket_that_is_a_folder_or_too_large(house: House) -> None:
    helped(house.run("--agent", "command", "--", "true", ticket=str(house.folder)))
    large = house.folder / "large.md"
    large.write_bytes(b"a" * (9 << 20))
    helped(house.run("--agent", "command", "--", "true", ticket=str(large)))


def test_ticket_from_standard_input(house: House) -> None:
    argv = (
        "run",
        "-",
        "--repo",
        str(house.repo),
        "--json",
        "--agent",
        "command",
        "--",
        "sh",
        "-c",
        "echo '#' >> src/app.py",
    )
    done = house.vestibule(*argv, stdin="# A title from a pipe\n")
    assert done.code == 3, done.err
    assert done.json["title"] == "A title from a pipe"


def test_ticket_chooses_neither_role_nor_scope(house: House) -> None:
    ticket = house.ticket("---\nrole: admin\napprovals: 0\nscope: ['**']\nagent: evil\n---\n# Fix\n\nPlease.\n")
    done = house.run("--agent", "command", "--", "sh", "-c", "echo '#' >> src/app.py", ticket=ticket)
    assert done.code == 3, done.err
    assert done.json["role"] == "fixer"
    assert done.json["agent"]["name"] == "command"


def test_not_a_repository(house: House, tmp_path: Path) -> None:
    for place in (tmp_path / "nothing", house.folder, house.repo / "src"):
        helped(house.vestibule("run", house.ticket(), "--repo", str(place), "--json", "--", "true"))


def test_empty_repository_and_unborn_branch(house: House) -> None:
    empty = house.folder / "empty"
    empty.mkdir()
    house.git("init", "-q", "-b", "main", repo=empty)
    error = helped(house.vestibule("run", house.ticket(), "--repo", str(empty), "--json", "--", "true"))
    assert "commit" in str(error)


def test_repository_without_configuration_names_init(house: House) -> None:
    bare = house.folder / "plain"
    bare.mkdir()
    house.git("init", "-q", "-b", "main", repo=bare)
    house.commit({"a.txt": "a\n"}, repo=bare)
    error = helped(house.vestibule("run", house.ticket(), "--repo", str(bare), "--json", "--", "true"))
    assert "vestibule init" in str(error["next"])


def test_configuration_in_the_working_tree_only_counts_for_nothing(house: House) -> None:
    (house.repo / ".vestibule/config.yaml").write_text("version: 1\nroles: {admin: {read: ['**'], write: ['**']}}\n")
    done = house.change()
    assert done.code == 3
    assert done.json["role"] == "fixer"


@pytest.mark.parametrize("key", ["models", "base_url", "key", "policy", "tools"])
def test_operator_keys_in_a_repository_are_refused(make_house: Callable[[str], House], key: str) -> None:
    house = make_house(CONFIG + f'{key}: "https://models.example.com"\n')
    error = helped(house.change())
    assert "operator" in str(error)
    assert "config.yaml" in str(error["where"])


def test_a_base_url_under_an_agent_is_refused(make_house: Callable[[str], House]) -> None:
    house = make_house(CONFIG.replace("model: claude-sonnet-5}", 'model: x, base_url: "https://models.example.com"}'))
    assert "operator" in str(helped(house.change()))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "version: 1\n",
        "version: 1\nroles: {}\n",
        "version: 2\nroles: {a: {read: ['**']}}\n",
        "\xff",
        "a: [",
        "version: 1\nrols: {}\n",
    ],
)
def test_impossible_configuration(make_house: Callable[[str], House], config: str) -> None:
    house = make_house(config)
    error = helped(house.change())
    assert "config.yaml" in str(error)


def test_unknown_role_agent_model_and_base(house: House) -> None:
    helped(house.run("--role", "nobody", "--agent", "command", "--", "true"))
    helped(house.run("--agent", "nobody"))
    helped(house.run("--agent", "command"))
    helped(house.run("--base", "no-such-branch", "--", "true"))
    helped(house.run("--base", "--upload-pack=evil", "--", "true"))
    helped(house.run("--agent", "claude-code", "--model", "claude-sonnet-5"))


def test_detached_head_and_dirty_tree_do_not_matter_to_a_run(house: House) -> None:
    house.commit({"src/second.py": "2\n"})
    house.git("checkout", "-q", "--detach", "HEAD~1")
    (house.repo / "src/app.py").write_text("dirty\n")
    done = house.change()
    assert done.code == 3, done.err
    assert done.json["base_commit"] == house.git("rev-parse", "main")
    assert (house.repo / "src/app.py").read_text() == "dirty\n"


def test_the_base_is_never_what_happens_to_be_checked_out(house: House) -> None:
    house.git("checkout", "-q", "-b", "feature")
    house.commit({"src/feature.py": "1\n"})
    done = house.change()
    assert done.json["base_commit"] == house.git("rev-parse", "main")
    house.git("branch", "-q", "-D", "main")
    helped(house.change())


def test_names_with_newlines_escape_codes_and_bad_bytes(house: House) -> None:
    (house.repo / "src" / "new\nline.py").write_text("1\n")
    (house.repo / "src" / "esc\x1b[31m.py").write_text("1\n")
    Path(os.fsdecode(bytes(house.repo / "src") + b"/bad\xff.py")).write_bytes(b"1\n")
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "Odd names")
    done = house.change()
    assert done.code == 3, done.err
    shown = house.vestibule("show", done.json["run"])
    assert "\x1b[31m.py" not in shown.out
    hostile = house.change("printf x > \"$(printf 'src/a\\nb.py')\"; printf x > \"$(printf 'src/\\033[2Jc.py')\"")
    assert hostile.code == 4, hostile.err
    assert "\x1b[2J" not in hostile.err + house.vestibule("show", hostile.json["run"], "--diff").out


def test_large_files_submodules_lfs_pointers_and_windows_line_ends(house: House) -> None:
    other = house.folder / "other"
    other.mkdir()
    house.git("init", "-q", "-b", "main", repo=other)
    sub = house.commit({"x": "1\n"}, repo=other)
    house.git("update-index", "--add", "--cacheinfo", f"160000,{sub},src/module")
    (house.repo / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"
    (house.repo / "src/model.bin").write_text(pointer)
    (house.repo / "src/win.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    house.git("add", ".gitattributes", "src/win.py")
    house.git("-c", "filter.lfs.clean=cat", "add", "src/model.bin")
    house.git("commit", "-q", "-m", "Odd files")
    done = house.change("printf 'c = 3\\r\\n' >> src/win.py")
    assert done.code == 3, done.err
    assert done.json["changed_files"] == ["src/win.py"]
    blob = subprocess.run(
        ["git", "-C", str(house.repo), "cat-file", "blob", f"{done.json['branch']}:src/win.py"],
        capture_output=True,
        check=True,
    ).stdout
    assert blob == b"a = 1\r\nb = 2\r\nc = 3\r\n"
    large = house.change("head -c 104857600 /dev/zero > src/large.dat")
    assert large.code == 4, large.err
    assert large.json["state"] == "refused"


def test_a_reason_is_needed_and_unknown_decisions_are_refused(house: House) -> None:
    run = house.change().json["run"]
    assert house.vestibule("review", run, "--approve").code == 2
    assert house.vestibule("review", run, "--reason", "x").code == 2
    done = house.vestibule("review", run, "--approve", "--reason", "  ", "--json")
    assert done.code in (2, 4)
    assert house.vestibule("show", run, "--json").json["state"] == "awaiting_review"


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["run"], ["run", "--nope"], ["check", "--base", "x", "--json", "--sarif"]]
)
def test_bad_calls_are_usage_errors(house: House, argv: list[str]) -> None:
    done = house.vestibule(*argv)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_a_repository_that_git_cannot_read_is_a_dependency_that_is_down(house: House) -> None:
    tree = house.git("rev-parse", "main^{tree}")
    broken = house.repo / ".git" / "objects" / tree[:2] / tree[2:]
    broken.chmod(0o644)
    broken.write_bytes(b"no object")
    done = house.vestibule("run", house.ticket(), "--repo", str(house.repo), "--json", "--", "true")
    assert done.code == 4, (done.out, done.err)
    assert done.json["refusals"][0]["rule"] == "dependency.git"
    assert "Traceback" not in done.err
