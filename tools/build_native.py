"""Builds `inside.c` for each architecture, the same bytes each time: `python tools/build_native.py [--check]`.

Needs gcc for this machine's architecture, or a cross compiler (Debian: gcc-x86-64-linux-gnu, gcc-aarch64-linux-gnu).
`--check` builds into a scratch folder and compares with what is shipped; exit 1 when it differs.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "src/vestibule/sandbox/native"
ARCHES = ("x86_64", "aarch64")
FLAGS = (
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-ident", "-fomit-frame-pointer", "-fno-pie", "-no-pie", "-static"),
    *("-nostdlib", "-nostartfiles", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,norelro", "-Wl,-s"),
)


def compiler(arch: str) -> str | None:
    """A compiler for that architecture, None where there is none."""
    import platform

    cross = shutil.which(f"{arch.replace('_', '-')}-linux-gnu-gcc") or shutil.which(f"{arch}-linux-gnu-gcc")
    return cross or (shutil.which("gcc") if platform.machine() == arch else None)


def build(arch: str, target: Path) -> None:
    """Raises subprocess.CalledProcessError when it does not compile."""
    program = compiler(arch)
    if program is None:
        raise FileNotFoundError(f"no compiler for {arch}")
    # Extra flags last: x86 control-flow marks and aarch64 outline helpers would make builds differ by distribution.
    more = ("-fcf-protection=none",) if arch == "x86_64" else ("-mno-outline-atomics",)
    subprocess.run([program, *FLAGS, *more, "-o", str(target), "inside.c"], check=True, cwd=HERE)


def main() -> int:
    """Builds what can be built here, or compares it."""
    check = "--check" in sys.argv[1:]
    status = 0
    for arch in ARCHES:
        shipped = HERE / f"inside.{arch}"
        if compiler(arch) is None:
            print(f"{shipped.name}: no compiler for {arch} here")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / shipped.name
            build(arch, made)
            same = shipped.is_file() and made.read_bytes() == shipped.read_bytes()
            if not check:
                shutil.copyfile(made, shipped)
            word = "the same" if same else "DIFFERS" if check else "written"
            print(f"{shipped.name}: {word}, {made.stat().st_size} bytes, sha256 {_digest(made)}")
            status |= int(check and not same)
    return status


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
