"""Projecting a view of 1,000 files shown in part, beside projecting the same files whole, in one run."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from vestibule.core.model import Scope, ViewRule
from vestibule.git import Git
from vestibule.sandbox.view import materialise, project

FILES = 1_000


@pytest.mark.bench
@pytest.mark.parametrize("show", ["schema", "fields", "redacted"])
@pytest.mark.parametrize("suffix", ["json", "yaml", "csv"])
def test_a_thousand_files_in_part(tmp_path: Path, show: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    records = [{"id": n, "name": f"person {n}", "email": f"p{n}@example.com", "visits": n % 7} for n in range(40)]
    rows = [",".join(str(value) for value in record.values()) for record in records]
    text = {
        "json": json.dumps(records, indent=1),
        "yaml": yaml.safe_dump(records),
        "csv": "\n".join([",".join(records[0]), *rows]) + "\n",
    }[suffix]
    for number in range(FILES):
        path = source / f"data/{number // 50}/{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("person 1", f"person {number}"))
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run(
            ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@example.com", *argv], check=True
        )
    git = Git.open(source)
    commit = git.commit_of("main")
    assert commit
    fields = ("id", "visits") if show == "fields" else ()
    rule = ViewRule(paths=("data/**",), show=show, fields=fields)  # type: ignore[arg-type]
    took: dict[str, float] = {}
    for name, views in (("whole", ()), ("in part", (rule,))):
        scope = Scope(read=("data/**",), write=(), views=views)
        began = time.perf_counter()
        view = project(git, commit, scope)
        materialise(git, view, tmp_path / name, uid=None)
        took[name] = (time.perf_counter() - began) * 1000
        assert len(view.files) == FILES
        assert len(view.partial) == (FILES if views else 0)
    part = tmp_path / f"in part/data/0/1.{suffix}"
    assert "@example.com" not in part.read_text()
    with capsys.disabled():
        print(
            f"\n{FILES} {suffix} files of {len(text) // 1024} KiB, {show}: {took['in part']:.0f} ms in part, "
            f"{took['whole']:.0f} ms whole ({took['in part'] / took['whole']:.1f}x)"
        )
