"""A role's set-up: run once behind walls, from the base commit only; read-only for the agent, verified at each use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, Done, House

GOOD = """\
mkdir -p /opt/setup/bin /opt/setup/python
cp /workspace/tools.lock /opt/setup/lock
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n' > /opt/setup/once
echo 'WORD = "from the set-up"' > /opt/setup/python/madeup.py
printf '#!/bin/sh\\necho ran the tool\\n' > /opt/setup/bin/madetool
chmod +x /opt/setup/bin/madetool
ln -s ../bin/madetool /opt/setup/python/link
"""
LOOK = "cat /opt/setup/once /opt/setup/lock >> src/app.py; madetool >> src/app.py"


def config(script: str, extra: str = "") -> str:
    setup = f"    setup: {{commands: [[sh, -ec, {json.dumps(script)}]], lockfiles: [tools.lock]{extra}}}\n"
    text = CONFIG.replace("    write: [", setup + "    write: [", 1)
    return text + 'verify: {commands: [[sh, -c, "madetool && test -r /opt/setup/once"]]}\n'


@pytest.fixture
def built(make_house: Callable[[str], House]) -> Callable[..., House]:
    def build(script: str = GOOD, extra: str = "") -> House:
        house = make_house(config(script, extra))
        house.commit({"tools.lock": "locked 1\n"})
        return house

    return build


def changed(house: House, done: Done) -> str:
    """What the agent wrote."""
    assert done.code == 3, done.err + done.out[:3000]
    return house.git("show", f"{done.json['head_commit']}:src/app.py", repo=_result(house, done))


def _result(house: House, done: Done) -> Path:
    return house.home / "runs" / done.json["run"] / "result.git"


def events(done: Done, action: str) -> list[dict[str, object]]:
    return [item for item in done.json["events"] if item["action"] == action]


def kept(house: House) -> list[Path]:
    return sorted((house.home / "toolchains").glob("[0-9a-f]*"))


def test_what_a_setup_made_is_there_for_the_agent_and_made_once(built: Callable[..., House]) -> None:
    house = built()
    first = house.change(LOOK)
    assert first.code == 3, first.err
    (place,) = kept(house)
    once = (place / "tree" / "once").read_text()
    second = house.change(
        'test "$(cat /opt/setup/once)" = ' + once + " && python3 -c 'import madeup; print(madeup.WORD)' >> src/app.py"
    )
    assert second.code == 3, second.err
    assert kept(house) == [place]
    assert [item["result"] for item in events(first, "toolchain.setup") if item["phase"] == "outcome"] == ["ok"]
    assert not events(second, "toolchain.setup")
    digests = {
        item["details"]["digest"]
        for done in (first, second)
        for item in events(done, "toolchain.use")
        if item["phase"] == "intent"
    }
    assert len(digests) == 1
    assert not list(house.home.glob("runs/*/setup"))


def test_the_verify_commands_have_it_too(built: Callable[..., House]) -> None:
    house = built()
    done = house.change(LOOK)
    assert done.code == 3, done.err
    merged = house.vestibule("review", done.json["run"], "--approve", "--reason", "fine", "--json")
    assert merged.code == 0, merged.err


def test_the_agent_cannot_change_it_and_its_own_lock_file_is_not_read(built: Callable[..., House]) -> None:
    house = built()
    done = house.change(
        "echo x > /opt/setup/once; touch /opt/setup/new; rm -f /opt/setup/lock; echo evil > tools.lock; "
        "echo evil > src/tools.lock; ls /opt/setup >> src/app.py"
    )
    assert done.code == 3, done.err
    (place,) = kept(house)
    assert sorted(item.name for item in (place / "tree").iterdir()) == ["bin", "lock", "once", "python"]
    assert (place / "tree" / "lock").read_text() == "locked 1\n"


def test_another_lock_file_makes_it_anew(built: Callable[..., House]) -> None:
    house = built()
    assert house.change(LOOK).code == 3
    house.commit({"tools.lock": "locked 2\n"})
    assert house.change(LOOK).code == 3
    assert sorted((item / "tree" / "lock").read_text() for item in kept(house)) == ["locked 1\n", "locked 2\n"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo no such package >&2; exit 7", "ended with 7"),
        ("mkfifo /opt/setup/pipe", "no file, folder or link"),
        ("kill -9 $$", "ended with 137"),
    ],
)
def test_a_setup_that_fails_ends_the_run_before_the_agent(built: Callable[..., House], script: str, says: str) -> None:
    house = built(script)
    done = house.change(LOOK)
    assert done.code == 4, done.err
    refusal = done.json["refusals"][0]
    assert refusal["rule"] == "setup.failed"
    assert says in refusal["reason"] + refusal["fact"]
    assert not events(done, "agent.start")
    assert kept(house) == []
    assert not list(house.home.glob("runs/*/setup"))
    assert str(house.folder) not in Path("/proc/self/mountinfo").read_text()


def test_a_lock_file_that_the_base_commit_lacks_is_a_failure(built: Callable[..., House]) -> None:
    house = built()
    house.git("rm", "-q", "tools.lock")
    house.git("commit", "-q", "-m", "Without")
    house.repo.joinpath("tools.lock").write_text("not committed")
    done = house.change(LOOK)
    assert (done.code, done.json["refusals"][0]["rule"]) == (4, "setup.failed")


def test_a_lock_file_that_is_a_link_is_a_failure(built: Callable[..., House]) -> None:
    house = built()
    house.repo.joinpath("tools.lock").unlink()
    house.repo.joinpath("tools.lock").symlink_to("/etc/passwd")
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "Link")
    done = house.change(LOOK)
    assert (done.code, done.json["refusals"][0]["rule"]) == (4, "setup.failed")


def test_a_kept_result_that_was_changed_is_refused(built: Callable[..., House]) -> None:
    house = built()
    assert house.change(LOOK).code == 3
    (place,) = kept(house)
    (place / "tree" / "bin" / "madetool").chmod(0o755)
    (place / "tree" / "bin" / "madetool").write_text("#!/bin/sh\necho evil\n")
    done = house.change(LOOK)
    assert done.code == 4
    assert done.json["refusals"][0]["rule"] == "dependency.toolchain"
    assert not events(done, "agent.start")


def test_what_a_package_runs_is_behind_the_walls(built: Callable[..., House]) -> None:
    script = """\
mkdir -p /opt/setup/bin; ln -s /etc/passwd /opt/setup/passwd; cp tools.lock /opt/setup/lock
( ls /root; cat /etc/shadow; getent hosts example.com; echo x > /workspace/tools.lock ) > /opt/setup/seen 2>&1 || true
( exec 3<>/dev/tcp/127.0.0.1/22 ) 2>/dev/null && echo connected >> /opt/setup/seen
env > /opt/setup/env; echo x > /usr/bin/evil 2>/dev/null && echo wrote >> /opt/setup/seen
true
"""
    house = built(script)
    house.env["STOLEN_TOKEN"] = "canary-of-the-supervisor"
    assert house.change("echo 1 >> src/app.py").code == 3
    (place,) = kept(house)
    seen = (place / "tree" / "seen").read_text()
    assert "Read-only file system" in seen or "Permission denied" in seen
    assert "connected" not in seen
    assert "wrote" not in seen
    assert "root:" not in seen
    assert "canary" not in (place / "tree" / "env").read_text()
    assert (place / "tree" / "passwd").readlink() == Path("/etc/passwd")  # kept as a link, followed by nobody here
    assert (place / "tree" / "lock").read_text() == "locked 1\n"


def test_a_name_beyond_the_operators_ceiling_is_refused_before_anything_runs(built: Callable[..., House]) -> None:
    house = built(GOOD, ', hosts: ["files.example.com:443"]')
    house.operate('network: {hosts: ["other.example.com:443"]}\n')
    done = house.change(LOOK)
    assert (done.code, done.json["refusals"][0]["rule"]) == (4, "setup.failed")
    assert kept(house) == []
