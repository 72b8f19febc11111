"""The export and the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import Adversary, Place, event, outcome
from click.testing import CliRunner

from vestibule.audit.export import export, verify_export
from vestibule.audit.note import SigningKey
from vestibule.audit.report import Verification
from vestibule.cli.audit import command
from vestibule.core.errors import DependencyDown, UsageError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A log as an installation has it."""
    config = tmp_path / "config.yaml"
    config.write_text("version: 1\n")
    monkeypatch.setenv("VESTIBULE_HOME", str(tmp_path))
    monkeypatch.setenv("VESTIBULE_CONFIG", str(config))
    made = Place(tmp_path)
    with made.open() as log:
        for number in range(7):
            intent = log.append(event(run=f"r{number % 2}", resource=f"é{number}\u2028\u202e\x1b[31m"))
            log.append(outcome(intent.seq, run=f"r{number % 2}"))
        log.append(event(run="r1", verdict="deny", reasons=("path.traversal",), resource="../../etc/passwd"))
    return made


def check(place: Place, lines: list[str], **options: Any) -> Verification:
    return verify_export(lines, place.trust, **options)


def test_an_export_verifies_whole_and_by_run(place: Place) -> None:
    whole, part = list(export(place.folder)), list(export(place.folder, "r1"))
    assert (len(whole), len(part)) == (16, 8)
    for lines in (whole, part):
        result = check(place, lines)
        assert result.ok, result.problems
        assert (result.size, result.entries) == (15, len(lines) - 1)
    assert "entries left out of the export" in check(place, part).does_not_detect


def _edited(lines: list[str]) -> None:
    lines[3] = lines[3].replace("src", "tmp").replace("é1", "é9")


def _moved(lines: list[str]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def _doubled(lines: list[str]) -> None:
    lines.insert(3, lines[2])


def _no_proof(lines: list[str]) -> None:
    record = json.loads(lines[2])
    lines[2] = json.dumps(record | {"proof": record["proof"][:-1]})


def _headless(lines: list[str]) -> None:
    del lines[0]


def _resized(lines: list[str]) -> None:
    lines[0] = lines[0].replace("\\n15\\n", "\\n16\\n")


def _invented(lines: list[str]) -> None:
    record = json.loads(lines[2])
    lines.append(json.dumps(record | {"entry": record["entry"].replace('"seq":2', '"seq":99')}))


def _garbage(lines: list[str]) -> None:
    lines.append("{" * 100_000)


def _extra(lines: list[str]) -> None:
    lines[2] = json.dumps(json.loads(lines[2]) | {"note": "trust me"})


def _nothing(lines: list[str]) -> None:
    lines.clear()


@pytest.mark.parametrize(
    "attack", [_edited, _moved, _doubled, _no_proof, _headless, _resized, _invented, _garbage, _extra, _nothing]
)
def test_a_changed_export_is_found(place: Place, attack: Callable[[list[str]], None]) -> None:
    lines = list(export(place.folder))
    attack(lines)
    assert not check(place, lines).ok


def test_an_export_needs_a_key_that_is_pinned_or_given(place: Place, tmp_path: Path) -> None:
    lines = list(export(place.folder))
    assert not verify_export(lines, tmp_path / "nowhere").ok
    assert verify_export(lines, tmp_path / "nowhere", keys=[place.key().verifier]).ok
    assert not check(place, lines, keys=[SigningKey.generate(place.key().name).verifier]).ok


def test_nothing_is_exported_without_a_checkpoint(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.open().close()
    with pytest.raises(DependencyDown):
        list(export(place.folder))


def run(*argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, list(argv), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return (done.return_value if isinstance(done.return_value, int) else 0), done.stdout


def test_verify_prints_the_contract_and_exits_0_or_6(place: Place) -> None:
    code, out = run("verify", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["size"], found["problems"]) == (0, True, 15, [])
    assert found["root"]
    assert found["detects"]
    assert found["does_not_detect"]
    assert run("verify", str(place.folder))[0] == 0
    assert run("verify", str(place.root))[0] == 0
    Adversary(place).run("DELETE FROM entries WHERE seq = 15")
    code, out = run("verify", "--json")
    assert (code, json.loads(out)["ok"]) == (6, False)
    code, out = run("verify")
    assert code == 6
    assert "log.truncated" in out


def test_verify_remembers_unless_told_not_to(place: Place) -> None:
    run("verify", "--no-remember")
    assert not list(place.trust.glob("*.head"))
    run("verify")
    assert len(list(place.trust.glob("*.head"))) == 1


def test_verify_takes_given_keys_and_refuses_malformed_ones(place: Place) -> None:
    assert run("verify", "--key", place.key().verifier.text())[0] == 0
    assert run("verify", "--key", SigningKey.generate("example.com/x").verifier.text())[0] == 6
    with pytest.raises(UsageError):
        run("verify", "--key", "nonsense")


def test_verify_of_nothing_is_a_usage_error(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        run("verify", str(tmp_path / "empty"))
    with pytest.raises(UsageError):
        run("verify", "--repo", str(tmp_path / "empty"))


def test_show_makes_hidden_characters_visible(place: Place) -> None:
    code, out = run("show", "--run", "r1")
    assert code == 0
    assert "path.traversal" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "⟦U+202E⟧" in out
    assert "r0" not in out


def test_show_as_json_is_the_contracts_events(place: Place) -> None:
    _, out = run("show", "--json", "--after", "13")
    events = json.loads(out)["events"]
    assert [item["seq"] for item in events] == [14, 15]
    wanted = {"seq", "time", "phase", "attempt", "actor", "subject", "action", "resource", "verdict", "reasons"}
    assert wanted <= events[1].keys()
    assert events[1]["verdict"] == "deny"


def test_an_exported_file_verifies_by_the_command(place: Place, tmp_path: Path) -> None:
    _, out = run("export", "--run", "r0")
    file = tmp_path / "evidence.jsonl"
    file.write_bytes(out.encode())
    code, out = run("verify", str(file), "--json")
    assert (code, json.loads(out)["entries"]) == (0, 8)
    file.write_bytes(file.read_bytes().replace(b"context.read", b"context.list", 1))
    assert run("verify", str(file), "--json")[0] == 6
