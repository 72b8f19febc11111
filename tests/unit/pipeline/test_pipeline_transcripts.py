"""Transcripts: bounded, private, never written through a link, and compared with what the log says."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.core.model import Event
from vestibule.pipeline import transcripts as module
from vestibule.pipeline.transcripts import keep, transcript_of, transcripts


def test_standard_error_follows_standard_output() -> None:
    assert transcript_of(b"out", b"", cut=False) == (b"out", False)
    assert transcript_of(b"out\n", b"err", cut=False) == (b"out\n\n--- stderr ---\nerr", False)
    assert transcript_of(b"", b"err", cut=True) == (b"\n--- stderr ---\nerr", True)


@settings(max_examples=60, deadline=None)
@given(out=st.integers(0, 6000), err=st.integers(0, 6000), limit=st.integers(200, 4000))
def test_a_transcript_is_bounded_and_says_what_is_missing(out: int, err: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_TRANSCRIPT_BYTES", limit)
        data, cut = transcript_of(b"o" * out, b"e" * err, cut=False)
    assert len(data) <= limit
    whole = out + (len(b"\n--- stderr ---\n") + err if err else 0)
    assert cut == (whole > limit)
    if cut:
        note = re.search(rb"\n--- (\d+) bytes left out ---\n", data)
        assert note is not None
        assert len(data) - len(note.group()) + int(note.group(1)) == whole


def test_a_file_is_the_supervisors_alone_and_replaces_what_stood_there(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    name = "transcript-1-1.log"
    (tmp_path / name).symlink_to(victim)
    (tmp_path / f".{name}.tmp").symlink_to(victim)
    told = keep(tmp_path, name, b"said", cut=False)
    assert victim.read_text() == "precious"
    assert not (tmp_path / name).is_symlink()
    assert (tmp_path / name).read_bytes() == b"said"
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert told == {"file": name, "sha256": hashlib.sha256(b"said").hexdigest(), "size": 4, "cut": False}
    assert sorted(item.name for item in tmp_path.iterdir()) == [name, "victim"]


def test_a_transcript_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        keep(tmp_path / "gone", "transcript-1-1.log", b"said", cut=False)


def _entry(told: Any, **fields: Any) -> Any:
    event = Event(
        **{
            "run": "r",
            "phase": "outcome",
            "action": "agent.start",
            "resource": "a",
            "subject": "system",
            "actor": "spiffe://x/pipeline",
            "details": {"transcript": told} if told is not None else {},
            **fields,
        }
    )
    return SimpleNamespace(seq=1, event=event)


def test_only_what_the_supervisor_said_of_a_file_of_the_run_is_looked_at(tmp_path: Path) -> None:
    told = keep(tmp_path, "transcript-1-1.log", b"said", cut=False)
    right = _entry(told)
    assert [item.state for item in transcripts(tmp_path, [right])] == ["kept"]
    others = [
        _entry(None),
        _entry("transcript-1-1.log"),
        _entry({**told, "file": "../transcript-1-1.log"}),
        _entry({**told, "file": "/etc/passwd"}),
        _entry({**told, "file": "resume.log"}),
        _entry(told, subject="agent"),
        _entry(told, phase="intent"),
        _entry(told, action="context.read"),
    ]
    assert list(transcripts(tmp_path, others)) == []


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone", "folder", "pipe", "link"])
def test_every_change_of_the_file_is_seen(tmp_path: Path, change: str) -> None:
    told = keep(tmp_path, "transcript-1-1.log", b"said", cut=False)
    path = tmp_path / "transcript-1-1.log"
    if change in ("longer", "shorter", "other"):
        path.write_bytes({"longer": b"said!", "shorter": b"sai", "other": b"sais"}[change])
    else:
        path.unlink()
    if change == "folder":
        path.mkdir()
    if change == "link":
        path.symlink_to("/dev/null")
    if change == "pipe":
        os.mkfifo(path)
    (found,) = transcripts(tmp_path, [_entry(told)])
    assert found.state == {"gone": "missing", "link": "unreadable"}.get(change, "changed")
