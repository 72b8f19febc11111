"""Runs pytest as an unprivileged uid, through folders staged so that this uid can read them. Started as root.

`sandbox_unprivileged.py STATE SOURCE SITE TESTS… -- PYTEST-ARGUMENTS…`
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

UID = 54321


def main() -> None:
    state, source, site, *rest = sys.argv[1:]
    tests, arguments = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    sys.path.insert(0, source)
    from vestibule.sandbox.local import syscalls

    prefix = os.path.realpath(sys.base_prefix)
    binary = os.path.realpath(sys.executable)
    state_fd_target = "/mnt/state"
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    sources = {"python": prefix, "source": source, "site": site, "state": state}
    sources |= {f"tests{number}": path for number, path in enumerate(tests)}
    opened = {name: os.open(path, os.O_PATH) for name, path in sources.items()}
    syscalls.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755")
    for name, fd in opened.items():
        Path("/mnt", name).mkdir()
        syscalls.mount(f"/proc/self/fd/{fd}", f"/mnt/{name}", None, syscalls.MS_BIND | syscalls.MS_REC)
        os.close(fd)
    os.chown(state_fd_target, UID, UID)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.chdir(state_fd_target)
    python = binary if prefix == "/usr" else f"/mnt/python/{os.path.relpath(binary, prefix)}"
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": state_fd_target,
        "TMPDIR": state_fd_target,
        "PYTHONPATH": "/mnt/source:/mnt/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "CI": "true",
    }
    command = [python, "-m", "pytest", "--rootdir=/mnt/tests0", "-c", "/dev/null", "-p", "no:cacheprovider"]
    os.execve(python, [*command, f"--basetemp={state_fd_target}/t", *arguments], environment)


if __name__ == "__main__":
    main()
