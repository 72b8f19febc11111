"""Walls can be switched off one by one, by tests only; each switch does what its name says."""

from __future__ import annotations

import ast
import json
import os
import secrets
from pathlib import Path

import pytest
from sandbox_helpers import PREFIX, RUN, python, specification
from tests.ablated import without

import vestibule
from vestibule.config.schema import OperatorConfig, OperatorSandbox, RepoConfig, RoleConfig
from vestibule.core.errors import DependencyDown
from vestibule.sandbox.local import LocalSandbox, ablation, own_workspace

SOURCE = Path(vestibule.__file__).parent
TOOLS = () if Path("/usr") == PREFIX else (PREFIX,)


def run(tmp_path: Path, wall: str, code: str) -> str:
    """What a program says in a sandbox without that wall."""
    backend = without(wall, tools=TOOLS, state=tmp_path / "state")
    folder = tmp_path / f"workspace-{wall}"
    folder.mkdir()
    own_workspace(folder, None if wall == "own_uid" else backend.workspace_uid(RUN))
    try:
        sandbox = backend.create(specification(python(code), folder))
        sandbox.go()
        result = sandbox.wait()
    finally:
        backend.release(RUN)
    return (result.stdout + result.stderr).decode().strip()


@pytest.mark.parametrize(
    ("wall", "code", "says"),
    [
        ("seccomp", "print([x.split()[1] for x in open('/proc/self/status') if x[:8] == 'Seccomp:'])", "['2']"),
        ("seccomp", "import socket; socket.socket(16, 3, 9).close(); print('made')", "made"),
        ("landlock", "import os; print('usr' in os.listdir('/'))", "True"),
        ("network", "import socket; print(len(socket.if_nameindex()) > 0)", "True"),
        ("pids", "import os; print(OUR_PID in [int(x) for x in os.listdir('/proc') if x.isdigit()])", "True"),
        ("caps", "print([x.split()[1] != '0' * 16 for x in open('/proc/self/status') if x[:6] == 'CapEff'])", "[True]"),
        ("descriptors", "import os; print(len(os.listdir('/proc/self/fd')) > 4)", "True"),
        ("cgroup", "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0] == 256 << 20)", "True"),
        ("own_uid", "print(open('/proc/self/uid_map').read().split()[1])", "0" if os.geteuid() == 0 else "54321"),
        ("first_process", "import os; os.kill(1, 0)", "PermissionError"),
    ],
)
def test_a_wall_that_is_switched_off_is_off(tmp_path: Path, wall: str, code: str, says: str) -> None:
    # The pid goes in late: names of tests are the same in every process.
    assert says in run(tmp_path, wall, code.replace("OUR_PID", str(os.getpid())))


def test_without_mounts_the_host_is_there_and_only_other_walls_stop_a_reader(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("canary-" + secrets.token_hex(8))
    code = f"""
import os
try:
    os.stat({str(tmp_path)!r}); print("seen")
except PermissionError: print("refused")
try:
    print(open({str(tmp_path / "canary")!r}).read())
except OSError as error: print(type(error).__name__)
"""
    said = run(tmp_path, "mounts", code).split()
    assert said[0] in ("seen", "refused")  # never "no such file": it is there
    assert said[1] == "PermissionError"


def test_walls_that_must_stay_cannot_be_switched_off(tmp_path: Path) -> None:
    for wall in ("userns", "no_new_privs", "nonsense"):
        with pytest.raises(DependencyDown):
            run(tmp_path, wall, "pass")
    with pytest.raises(ValueError, match="would be writable"):
        ablation.options(["--args"], ("mounts", "own_uid"))


def test_a_sandbox_without_a_wall_has_proved_none_so_no_minimum_admits_it(tmp_path: Path) -> None:
    backend = without("landlock", tools=TOOLS, state=tmp_path / "state")
    folder = tmp_path / "workspace"
    folder.mkdir()
    sandbox = backend.create(specification("true", folder))
    try:
        assert sandbox.report.missing(("mounts", "network", "seccomp")) == ("mounts", "network", "seccomp")
    finally:
        sandbox.kill()


def test_nothing_in_the_product_switches_a_wall_off() -> None:
    """`_without` is set once, to nothing; nobody derives from LocalSandbox; no file reads it from anywhere."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert not any("LocalSandbox" in ast.unparse(base) for base in node.bases), path
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any("_without" in ast.unparse(target) for target in targets):
                    assert path.name == "backend.py", path
                    assert node.value is not None
                    assert ast.unparse(node.value) == "frozenset()", path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "type"):
                assert "_without" not in ast.unparse(node), path
    assert LocalSandbox._without == frozenset()


def test_no_configuration_names_the_switch() -> None:
    for schema in (OperatorConfig, OperatorSandbox, RepoConfig, RoleConfig):
        assert '"_without"' not in json.dumps(schema.model_json_schema())
        assert '"without"' not in json.dumps(schema.model_json_schema())
