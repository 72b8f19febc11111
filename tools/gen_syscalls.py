"""Writes `sandbox/local/syscall_numbers.py` from the kernel's headers (Debian: linux-libc-dev) and newer calls.

Only needed when a call is to be added; the result is committed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src/vestibule/sandbox/local/syscall_numbers.py"

_GENERIC = (
    "#define __BITS_PER_LONG 64\n#define __ARCH_WANT_RENAMEAT\n#define __ARCH_WANT_NEW_STAT\n"
    "#define __ARCH_WANT_SET_GET_RLIMIT\n#define __ARCH_WANT_SYS_CLONE3\n#define __ARCH_WANT_MEMFD_SECRET\n"
    "#include <asm-generic/unistd.h>\n"
)
# Since 424 a call has one number everywhere. These are newer than the headers of Debian 12.
NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}


def macros(source: str) -> dict[str, str]:
    """Every macro of a preprocessed source."""
    done = subprocess.run(["gcc", "-E", "-dM", "-"], input=source, capture_output=True, text=True, check=True)
    return dict(re.findall(r"#define (__NR\w*) (\S+)", done.stdout))


def numbers(found: dict[str, str]) -> dict[str, int]:
    """Call → number, following macros that name macros."""
    result = {}
    for name, text in found.items():
        if not name.startswith("__NR_"):
            continue
        value = text
        for _ in range(4):
            value = found.get(value, value)
        if value.isdigit() and name not in ("__NR_syscalls", "__NR_arch_specific_syscall"):
            result[name[5:]] = int(value)
    return result


def main() -> None:
    x86 = numbers(macros("#include <asm/unistd_64.h>\n"))
    arm = numbers(macros(_GENERIC))
    for name, number in NEWER.items():
        x86.setdefault(name, number)
        arm.setdefault(name, number)
    lines = [f'    "{name}": ({x86.get(name)}, {arm.get(name)}),' for name in sorted({*x86, *arm})]
    TARGET.write_text(
        '"""Numbers of system calls. Written by `tools/gen_syscalls.py`; *stdlib only*."""\n\n'
        "from __future__ import annotations\n\n"
        "# name → (x86_64, aarch64); None where the architecture has no such call.\n"
        "NUMBERS: dict[str, tuple[int | None, int | None]] = {\n" + "\n".join(lines) + "\n}\n",
        "utf-8",
    )


if __name__ == "__main__":
    main()
