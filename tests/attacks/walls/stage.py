"""A small world of its own for the battery: addresses, folders and sockets that belong to nobody else. *A script.*

`stage.py TIER OUT SOURCE SITE ROOT ARGUMENTS…` makes new mount and network namespaces, gives the loopback interface
the addresses of a fake outside (a metadata service, public resolvers, allowed and denied hosts), puts empty file
systems over /srv, /run, /tmp and /home, shows interpreter, packages and sources below /mnt, becomes the tier's user
and starts `battery.py`. Started as root it can play both tiers; started by a user, the user tier.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

UID = 54321
ADDRESSES = {
    "allowed4": "11.22.33.44",
    "denied4": "11.22.33.55",
    "other4": "11.22.33.77",
    "relay4": "11.22.33.66",
    "resolver4": "9.9.9.9",
    "metadata4": "169.254.169.254",
    "private4": "10.1.2.3",
}
ADDRESSES6 = {
    "allowed6": "2600:1f00::44",
    "denied6": "2600:1f00::55",
    "resolver6": "2620:fe::fe",
    "metadata6": "fd00:ec2::254",
}
HOME = "/home/person"
_NEWNS, _NEWUSER, _NEWNET = 0x20000, 0x10000000, 0x40000000
_PRIVATE, _REC, _BIND = 1 << 18, 16384, 4096
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    found = _libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode())
    if found != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def _addresses() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x8 | 0x40))
        for number, address in enumerate(ADDRESSES.values(), start=1):
            place = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(sock, 0x8916, struct.pack("16s16s8x", f"lo:{number}".encode(), place))
            mask = struct.pack("HH4s8x", socket.AF_INET, 0, b"\xff" * 4)
            fcntl.ioctl(sock, 0x891C, struct.pack("16s16s8x", f"lo:{number}".encode(), mask))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        for address in ADDRESSES6.values():
            fcntl.ioctl(sock, 0x8916, struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, address), 128, 1))
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")


def main() -> None:
    tier, out, source, site, root, *arguments = sys.argv[1:]
    result = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    uid, gid = os.geteuid(), os.getegid()
    flags = _NEWNS | _NEWNET | (_NEWUSER if uid else 0)
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "no namespaces for the stage")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _mount("none", "/", None, _REC | _PRIVATE)
    _addresses()
    prefix = os.path.realpath(sys.base_prefix)
    binary = os.path.realpath(sys.executable)
    shown = {"python": prefix, "source": source, "site": site, "root": root}
    opened = {name: os.open(path, os.O_PATH) for name, path in shown.items()}
    leases = os.open("/run/vestibule", os.O_PATH) if uid == 0 and Path("/run/vestibule").is_dir() else -1
    for folder in ("/mnt", "/srv", "/run", "/tmp", "/home"):
        _mount("tmpfs", folder, "tmpfs", 0, "mode=1777,size=600m" if folder == "/tmp" else "mode=0755,size=600m")
    for name, fd in opened.items():
        Path("/mnt", name).mkdir()
        _mount(f"/proc/self/fd/{fd}", f"/mnt/{name}", None, _BIND | _REC)
    if leases >= 0:
        Path("/run/vestibule").mkdir()
        _mount(f"/proc/self/fd/{leases}", "/run/vestibule", None, _BIND | _REC)
    Path("/srv/small").mkdir()
    _mount("tmpfs", "/srv/small", "tmpfs", 0, "mode=0755,size=32m,nr_inodes=2000")
    Path("/run/user").mkdir()
    Path(HOME).mkdir()
    own = UID if tier == "user" and uid == 0 else uid
    if own != uid:
        for folder in ("/srv", "/srv/small", "/run", "/run/user", HOME):
            os.chown(folder, own, own)
        os.setgroups([])
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
    os.chdir(HOME)
    os.set_inheritable(result, True)
    python = binary if prefix == "/usr" else f"/mnt/python/{os.path.relpath(binary, prefix)}"
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": HOME,
        "PYTHONPATH": "/mnt/root:/mnt/source:/mnt/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/mnt/python/lib",
    }
    os.execve(python, [python, "-m", "tests.attacks.walls.battery", tier, str(result), *arguments], environment)


if __name__ == "__main__":
    main()
