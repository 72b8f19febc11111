"""The filter, judged by running it in a small classic-BPF machine, for both architectures."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule.sandbox.local import seccomp

ARCHES = sorted(seccomp.ARCHES)
EPERM, ENOSYS = 0x00050000 | 1, 0x00050000 | 38
_U64 = st.integers(0, 2**64 - 1)


def run(machine: str, number: int, args: tuple[int, ...] = (), *, audit: int | None = None) -> int:
    """What the kernel would do: classic BPF on `struct seccomp_data` (linux/seccomp.h)."""
    arch = seccomp.ARCHES[machine]
    filled = (*args, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch.audit if audit is None else audit, 0, *filled)
    program = seccomp.filter_program(machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096
    at, accumulator = 0, 0
    while True:
        code, jt, jf, k = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x15:
                at += jt if accumulator == k else jf
            case 0x35:
                at += jt if accumulator >= k else jf
            case 0x45:
                at += jt if accumulator & k else jf
            case 0x54:
                accumulator &= k
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(hex(code))


def _number(machine: str, pair: tuple[int | None, int | None]) -> int | None:
    return pair[seccomp.ARCHES[machine].column]


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("name", sorted(seccomp.DENIED))
def test_every_call_of_the_list_is_refused(machine: str, name: str) -> None:
    number = _number(machine, seccomp.DENIED[name])
    if number is not None:
        assert run(machine, number, (2**64 - 1,) * 6) == EPERM


@pytest.mark.parametrize("machine", ARCHES)
@given(number=st.integers(0, 2**32 - 1), audit=st.integers(0, 2**32 - 1))
def test_any_other_architecture_is_killed(machine: str, number: int, audit: int) -> None:
    if audit != seccomp.ARCHES[machine].audit:
        assert run(machine, number, audit=audit) == seccomp.KILL


@given(number=st.integers(0x40000000, 2**32 - 1))
def test_every_x32_number_is_killed(number: int) -> None:
    assert run("x86_64", number) == seccomp.KILL


@pytest.mark.parametrize("machine", ARCHES)
@given(flags=_U64, rest=st.tuples(_U64, _U64, _U64))
def test_clone_with_any_namespace_flag_is_refused(machine: str, flags: int, rest: tuple[int, ...]) -> None:
    expected = EPERM if flags & 0x7E020000 else seccomp.ALLOW
    assert run(machine, {"x86_64": 56, "aarch64": 220}[machine], (flags, *rest)) == expected
    assert run(machine, 435, (flags, *rest)) == ENOSYS


@pytest.mark.parametrize("machine", ARCHES)
@given(high=st.integers(0, 2**32 - 1), request=st.sampled_from([0x5412, 0x541C, 0x5401, 0x5413]))
def test_terminal_injection_is_refused_whatever_the_high_bits(machine: str, high: int, request: int) -> None:
    expected = EPERM if request in (0x5412, 0x541C) else seccomp.ALLOW
    assert run(machine, {"x86_64": 16, "aarch64": 29}[machine], (0, high << 32 | request)) == expected


@pytest.mark.parametrize("machine", ARCHES)
@given(
    domain=st.integers(0, 50),
    kind=st.integers(0, 11),
    flags=st.sampled_from([0, 0o4000, 0o2000000, 0o2004000]),
    protocol=st.integers(0, 300),
)
def test_only_plain_sockets_are_allowed(machine: str, domain: int, kind: int, flags: int, protocol: int) -> None:
    answer = run(machine, {"x86_64": 41, "aarch64": 198}[machine], (domain, kind | flags, protocol))
    plain = (
        domain == 1
        or (domain in (2, 10) and kind in (1, 2) and protocol in (0, 6, 17))
        or (domain == 16 and protocol == 0)
    )
    assert (answer == seccomp.ALLOW) == plain


@pytest.mark.parametrize("machine", ARCHES)
@given(domain=st.integers(0, 50), high=st.integers(0, 2**32 - 1), kind=st.integers(0, 2**32 - 1))
def test_a_pair_of_sockets_opens_no_other_family(machine: str, domain: int, high: int, kind: int) -> None:
    answer = run(machine, {"x86_64": 53, "aarch64": 199}[machine], (high << 32 | domain, kind))
    assert answer == (seccomp.ALLOW if domain == 1 else EPERM)


@pytest.mark.parametrize("machine", ARCHES)
@given(value=st.integers(0, 2**32 - 1) | st.sampled_from([0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000]))
def test_only_plain_personalities_are_allowed(machine: str, value: int) -> None:
    answer = run(machine, {"x86_64": 135, "aarch64": 92}[machine], (value,))
    assert (answer == seccomp.ALLOW) == (value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF))


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("name", ["read", "openat", "execve", "futex", "epoll_wait", "seccomp", "mmap"])
def test_everyday_calls_are_allowed(machine: str, name: str) -> None:
    numbers = {
        "read": (0, 63),
        "openat": (257, 56),
        "execve": (59, 221),
        "futex": (202, 98),
        "epoll_wait": (232, 22),
        "seccomp": (317, 277),
        "mmap": (9, 222),
    }
    assert run(machine, numbers[name][seccomp.ARCHES[machine].column]) == seccomp.ALLOW


def test_an_unknown_architecture_gets_no_filter() -> None:
    with pytest.raises(seccomp.UnknownArchitecture):
        seccomp.filter_program("riscv64")


def test_no_number_stands_twice_in_the_list() -> None:
    for column in (0, 1):
        numbers = [pair[column] for pair in seccomp.DENIED.values() if pair[column] is not None]
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("column", "header"),
    [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        (1, "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_are_the_kernel_headers(column: int, header: str) -> None:
    path = Path(header)
    if not path.exists():
        pytest.skip("kernel headers are not installed")
    defined = {
        match[1]: int(match[2])
        for match in re.finditer(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", path.read_text(), re.MULTILINE)
    }
    assert len(defined) > 250
    for name, pair in seccomp.DENIED.items():
        if name in defined:
            assert pair[column] == defined[name], name
