"""The part of libbpf.so.1 that the monitor uses, by ctypes. *Stdlib only.*

Rules it keeps:
1. It is loaded in the monitor's own process only: a crash or hang of it ends nothing else.
2. Whatever fails is `Failed` with the kernel's error name; nothing is guessed from what a kernel lists.

Source: libbpf 1.x API documentation; bpf(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

Record = Callable[[bytes], None]
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_POINTERS = (
    "bpf_object__open_mem",
    "bpf_object__find_map_by_name",
    "bpf_object__find_program_by_name",
    "bpf_program__attach",
    "bpf_program__attach_cgroup",
    "ring_buffer__new",
)
PORTION = 2048
_ENOUGH = 4000  # an error number that the kernel never gives
_MISSES_AT, _INFO_BYTES = 208, 232
"""`recursion_misses` in `struct bpf_prog_info` (linux/bpf.h)."""


class Failed(OSError):
    """libbpf or the kernel refused."""


def _silent(_level: int, _format: bytes, _arguments: int) -> int:
    return 0


_SILENT = _PRINT(_silent)


class Library:
    """libbpf.so.1. Raises Failed when it is not there or too old."""

    def __init__(self) -> None:
        try:
            self.lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
            for name in _POINTERS:
                getattr(self.lib, name).restype = ctypes.c_void_p
        except (OSError, AttributeError) as error:
            raise Failed(errno.ENOENT, f"libbpf.so.1 cannot be used: {error}") from None
        self.lib.libbpf_set_print(_SILENT)


class Object:
    """One loaded object file. Its maps and links live until the process ends."""

    def __init__(self, library: Library, data: bytes, *, ring_bytes: int | None = None) -> None:
        """Open and load. `ring_bytes`: another size of the ring (a power of two, whole pages).

        Raises Failed.
        """
        self._lib = library.lib
        self._data = data  # libbpf reads from it
        self._object = self._lib.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), None)
        if not self._object:
            raise self._failed("the object cannot be opened")
        if ring_bytes is not None:
            ring = self._lib.bpf_object__find_map_by_name(self._at, b"ring")
            self._checked(self._lib.bpf_map__set_max_entries(ctypes.c_void_p(ring), ring_bytes), "the ring's size")
        self._checked(self._lib.bpf_object__load(self._at), "the kernel refused the programs")
        self._callback: object = None
        self._ring = 0

    @property
    def _at(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._object)

    def map_fd(self, name: str) -> int:
        found: int = self._lib.bpf_object__find_map_fd_by_name(self._at, name.encode())
        self._checked(found, f"no map {name}")
        return found

    def attach(self, name: str, cgroup: int | None = None) -> Link:
        """Attach a program where its section says; with `cgroup`, a descriptor, to that group."""
        program = self._program(name)
        if cgroup is None:
            link = self._lib.bpf_program__attach(program)
        else:
            link = self._lib.bpf_program__attach_cgroup(program, cgroup)
        if not link:
            raise self._failed(f"{name} cannot be attached")
        return Link(self._lib, link)

    def misses(self, name: str) -> int:
        """How often the kernel left this program out because it was running already on that processor."""
        fd = self._lib.bpf_program__fd(self._program(name))
        info = ctypes.create_string_buffer(_INFO_BYTES)
        size = ctypes.c_uint32(_INFO_BYTES)
        self._checked(self._lib.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)), f"no facts about {name}")
        if size.value < _MISSES_AT + 8:
            return 0
        return int.from_bytes(info.raw[_MISSES_AT : _MISSES_AT + 8], "little")

    def open_ring(self, record: Record) -> int:
        """Give each event to `record`; the descriptor that tells when there are some."""

        taken = 0

        def arrived(_: int, data: int, size: int) -> int:
            nonlocal taken
            record(ctypes.string_at(data, size))
            taken += 1
            # A ring that is filled as fast as it is emptied must not keep us here for ever.
            return 0 if taken % PORTION else -_ENOUGH

        self._callback = _CALLBACK(arrived)
        self._ring = self._lib.ring_buffer__new(self.map_fd("ring"), self._callback, None, None)
        if not self._ring:
            raise self._failed("the ring cannot be opened")
        found: int = self._lib.ring_buffer__epoll_fd(ctypes.c_void_p(self._ring))
        return found

    def consume(self) -> int:
        """Take what is there now, at most a portion; how many events, about."""
        found: int = self._lib.ring_buffer__consume(ctypes.c_void_p(self._ring))
        if found == -_ENOUGH:
            return PORTION
        self._checked(found, "the ring cannot be read")
        return found

    def put(self, fd: int, key: bytes, value: bytes) -> None:
        self._checked(self._lib.bpf_map_update_elem(fd, key, value, ctypes.c_uint64(0)), "a map cannot be written")

    def get(self, fd: int, key: bytes, size: int) -> bytes:
        value = ctypes.create_string_buffer(size)
        self._checked(self._lib.bpf_map_lookup_elem(fd, key, value), "a map cannot be read")
        return value.raw

    def remove(self, fd: int, key: bytes) -> None:
        self._checked(self._lib.bpf_map_delete_elem(fd, key), "a map cannot be written")

    def _program(self, name: str) -> ctypes.c_void_p:
        found = self._lib.bpf_object__find_program_by_name(self._at, name.encode())
        if not found:
            raise Failed(errno.ENOENT, f"no program {name}")
        return ctypes.c_void_p(found)

    def _checked(self, result: int, what: str) -> None:
        if result < 0:
            raise self._failed(what, -result if result != -1 else None)

    @staticmethod
    def _failed(what: str, number: int | None = None) -> Failed:
        code = number or ctypes.get_errno() or errno.EIO
        return Failed(code, f"{what}: {os.strerror(code)}")


class Link:
    """An attached program."""

    def __init__(self, lib: ctypes.CDLL, link: int) -> None:
        self._lib = lib
        self._link = link

    def close(self) -> None:
        """Detach. Idempotent."""
        if self._link:
            self._lib.bpf_link__destroy(ctypes.c_void_p(self._link))
            self._link = 0
