"""Builds `monitor.bpf.c` for each architecture, the same bytes each time: `python tools/build_bpf.py [--check]`.

Needs clang 14 and libbpf's headers (Debian 12: clang-14, llvm-14, libbpf-dev, linux-libc-dev).
`--check` builds into a scratch folder and compares with what is shipped; exit 1 when it differs.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "src/vestibule/boundary/host/bpf"
ARCHES = {"x86_64": "x86", "aarch64": "arm64"}
CLANG, STRIP = "clang-14", "llvm-strip-14"
FLAGS = (
    *("-std=gnu11", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-Wno-unused-parameter", "-Wno-unused-function", "-nostdinc", "-I/usr/lib/llvm-14/lib/clang/14/include"),
    *("-I/usr/include", "-fno-ident", "-ffile-prefix-map=/=", "-fdebug-compilation-dir=."),
)


def tools() -> bool:
    """Whether what builds it is here."""
    return all(shutil.which(name) for name in (CLANG, STRIP)) and Path("/usr/include/bpf/bpf_core_read.h").exists()


def build(machine: str, target: Path) -> None:
    """Raises subprocess.CalledProcessError when it does not compile."""
    # The kernel's own type headers name an architecture folder; both have the same types here.
    headers = next(path for path in sorted(Path("/usr/include").glob("*-linux-gnu")) if (path / "asm").is_dir())
    command = [CLANG, *FLAGS, f"-I{headers}", f"-D__TARGET_ARCH_{ARCHES[machine]}"]
    subprocess.run([*command, "-c", "monitor.bpf.c", "-o", str(target)], check=True, cwd=HERE)
    subprocess.run([STRIP, "-g", str(target)], check=True)  # debugging data goes, BTF stays


def main() -> int:
    """Builds what can be built here, or compares it."""
    check = "--check" in sys.argv[1:]
    if not tools():
        print(f"build_bpf: {CLANG}, {STRIP} and libbpf's headers are needed", file=sys.stderr)
        return 2
    status = 0
    for machine in ARCHES:
        shipped = HERE / f"monitor.{machine}.o"
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / shipped.name
            build(machine, made)
            same = shipped.is_file() and made.read_bytes() == shipped.read_bytes()
            if not check:
                shutil.copyfile(made, shipped)
            word = "the same" if same else "DIFFERS" if check else "written"
            digest = hashlib.sha256(made.read_bytes()).hexdigest()
            print(f"{shipped.name}: {word}, {made.stat().st_size} bytes, sha256 {digest}")
            status |= int(check and not same)
    return status


if __name__ == "__main__":
    sys.exit(main())
