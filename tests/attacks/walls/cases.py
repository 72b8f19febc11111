"""The list of attacks on the walls: what is tried, what should come of it, which walls are in the way, where it runs.

Groups: N network, U sockets and descriptors, F files, git and results, P processes and kernel interfaces, M monitor,
K Kubernetes, S settings, lifecycle and secrets. E, B and R are what other products run against their own egress
walls: an adversarial battery, integration tests, and flaws that were reported to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One attack. `expected` is `stopped`, `allowed` (it is no attack: it has to work) or `open` (it works, and why).

    `runs`: `batch` (one sandbox for many), `own` (a sandbox of its own), `elsewhere` (another test, named in `why`) or
    `not here` (the reason is in `why`).
    """

    id: str
    tried: str
    by: tuple[str, ...]
    expected: str = "stopped"
    runs: str = "batch"
    why: str = ""
    control: bool = False
    """Whether it succeeds on this machine where no wall is: proof that the attack itself works."""
    tiers: tuple[str, ...] = field(default=("root", "user"))

    @property
    def group(self) -> str:
        return self.id[0]


GROUPS = {
    "N": "Network",
    "U": "Sockets and descriptors",
    "F": "Files, git and results",
    "P": "Processes and kernel interfaces",
    "M": "Monitor",
    "K": "Kubernetes",
    "S": "Settings, lifecycle, secrets",
    "E": "A peer's adversarial egress battery",
    "B": "A peer's integration tests",
    "R": "Flaws reported to a peer",
}


def _case(
    identity: str,
    tried: str,
    by: str,
    *,
    expected: str = "stopped",
    runs: str = "batch",
    why: str = "",
    control: bool = False,
    tiers: tuple[str, ...] = ("root", "user"),
) -> Case:
    return Case(identity, tried, tuple(by.split()), expected, runs, why, control, tiers)


_ELSEWHERE, _NOT_HERE, _OWN = "elsewhere", "not here", "own"

CASES: tuple[Case, ...] = (
    # --- network
    _case("N01", "TLS to the IPv4 address of an allowed host", "network egress", control=True),
    _case("N02", "TLS to the IPv6 address of an allowed host", "network egress", control=True),
    _case("N03", "addresses written in decimal, octal and hexadecimal", "network egress", control=True),
    _case("N04", "an IPv4 address inside an IPv6 one", "network egress", control=True),
    _case("N05", "metadata services by IPv4 and IPv6", "network egress", control=True),
    _case("N06", "an allowed name that resolves to this machine", "addresses"),
    _case("N07", "a name whose address changes between check and connection", "addresses"),
    _case("N08", "names with a NUL byte, asked of the resolver and in the handshake", "egress"),
    _case("N09", "trailing dots, capitals, homographs", "egress"),
    _case("N10", "names that begin or end like an allowed one", "egress"),
    _case("N11", "names above and below an allowed one, wildcards", "egress"),
    _case("N12", "DNS queries with long labels to a resolver outside", "network", control=True),
    _case("N13", "TXT, NULL, SRV, HTTPS and ANY queries for made-up names to the resolver inside", "egress"),
    _case("N14", "DNS over HTTPS at names that are not listed, and through an allowed one", "egress"),
    _case("N15", "DNS over TCP and over TLS to a resolver outside", "network", control=True),
    _case("N16", "a handshake that names another host than the listener's", "egress"),
    _case("N17", "a handshake without a name, and one with an encrypted name", "egress"),
    _case(
        "N18",
        "another Host header inside TLS to an allowed host",
        "",
        runs=_NOT_HERE,
        why="TLS goes end to end: Vestibule ends none, so it sees no Host header; a host that serves others behind its "
        "own name carries them",
    ),
    _case("N19", "SSH, plain HTTP and a broken record on a TLS port", "egress"),
    _case("N20", "other ports of an allowed host, by name and by address", "network egress", control=True),
    _case("N21", "datagrams (QUIC) to allowed and other hosts", "network", control=True),
    _case("N22", "raw, packet and ping sockets", "seccomp caps network"),
    _case("N23", "smuggled and pipelined requests for a second host", "egress"),
    _case("N24", "a relay of its own inside, asked to reach a denied host", "network", control=True),
    _case("N25", "user information and absolute addresses in a request line", "egress"),
    _case("N26", "a redirect of an allowed host to a denied one", "egress"),
    _case("N27", "own resolver settings, own hosts file, no proxy variables", "mounts network"),
    _case("N28", "binding the address and port of a listener", "network"),
    _case(
        "N29",
        "an upload (PUT) to an allowed host",
        "",
        expected="open",
        why="what is allowed by name is allowed end to end; bounded by the byte budget (N30) and closed to runs that "
        "read more than the operator clears (S06)",
    ),
    _case("N30", "4 MiB to an allowed host with a budget of 1 MiB", "budget"),
    _case("N31", "270 connections that never finish their handshake", "egress"),
    _case("N32", "the names and addresses of another task that runs at the same time", "network"),
    _case("N33", "vsock, netlink, AF_ALG, TIPC, CAN, XDP and other families", "seccomp"),
    # --- sockets and descriptors
    _case("U01", "an abstract UNIX socket of the host", "network landlock", control=True),
    _case("U02", "the sockets of docker, containerd and podman", "mounts landlock", control=True),
    _case("U03", "the sockets of D-Bus, systemd, ssh-agent and gpg-agent", "mounts landlock", control=True),
    _case("U04", "descriptors that the supervisor left open", "descriptors", control=True),
    _case("U05", "a descriptor offered by a process outside", "network mounts", control=True),
    # --- files, git and results
    _case("F01", "writing outside the workspace, directly and by ..", "mounts landlock", control=True),
    _case("F02", "links in the workspace to files outside, written through", "mounts landlock", control=True),
    _case("F03", "a file swapped for a link while the host collects results", "export", runs=_OWN),
    _case("F04", "hard links to files outside", "mounts landlock", control=True),
    _case("F05", "git hooks", "export"),
    _case("F06", "git configuration that names programs", "export"),
    _case("F07", "a bare repository in a folder", "export"),
    _case("F08", "another .git in place of the given one", "export"),
    _case("F09", "hooks of nested repositories", "export"),
    _case("F10", "attributes with filters, submodules with commands", "export guards"),
    _case("F11", "CI files, CODEOWNERS, settings of agents and MCP servers", "guards"),
    _case("F12", "files that people's tools start: tasks, .envrc, Makefile, hooks of package managers", "guards"),
    _case("F13", "shell start-up files and programs that shadow the host's", "export"),
    _case("F14", "/proc/…/root and cwd", "mounts pids", control=True),
    _case("F15", "credentials and environments of the host", "mounts pids", control=True),
    _case("F16", "set-user-id files, pipes, sockets and devices in the result", "export seccomp"),
    _case("F17", "archives with paths that climb", "export"),
    _case("F18", "file names with line feeds, escapes and workflow commands", "text"),
    _case("F19", "filling the disk", "disk", runs=_OWN),
    _case("F20", "a program that runs from memory", "mounts landlock", control=True),
    # --- processes and kernel interfaces
    _case("P01", "reading the memory of a process outside", "pids seccomp own_uid", control=True),
    _case("P02", "signals to processes outside", "pids landlock own_uid", control=True),
    _case("P03", "new user and mount namespaces, a sandbox of its own", "seccomp userns"),
    _case("P04", "entering namespaces, taking descriptors of processes outside", "pids seccomp own_uid", control=True),
    _case("P05", "typing into the terminal of the supervisor", "seccomp session", runs=_OWN),
    _case("P06", "asynchronous calls that no filter sees (io_uring)", "seccomp"),
    _case("P07", "BPF, performance events, keys, userfaultfd and other kernel objects", "seccomp"),
    _case("P08", "the 32-bit and x32 call tables", "seccomp userns"),
    _case("P09", "namespace flags hidden in clone3", "seccomp userns"),
    _case("P10", "su, sudo, set-user-id programs, setuid(0)", "no_new_privs userns own_uid"),
    _case("P11", "a fork bomb", "cgroup rlimits", runs=_OWN),
    _case("P12", "a memory hog, in processes and in memory files", "cgroup rlimits", runs=_OWN),
    _case("P13", "processes that leave their session to outlive the task", "pids cgroup", runs=_OWN),
    _case("P14", "moving to another control group", "mounts landlock own_uid"),
    _case("P15", "a renamed program started by the loader", "mounts landlock", control=True),
    _case("P16", "sysctls, sysrq, kernel memory, devices", "mounts landlock own_uid"),
    _case("P17", "a working folder at a descriptor of the launcher", "descriptors", runs=_OWN),
    _case("P18", "overwriting the launcher", "mounts landlock own_uid first_process"),
    # --- monitor
    _case(
        "M01",
        "so many events that some are lost",
        "monitor",
        runs=_ELSEWHERE,
        why="tests/unit/boundary/host/test_host_monitor.py::test_a_ring_that_overflows_is_told_and_never_silent",
    ),
    _case("M02", "killing or stopping the monitor", "pids landlock own_uid", control=True),
    _case(
        "M03",
        "paths longer than the monitor keeps",
        "monitor",
        runs=_ELSEWHERE,
        why="tests/unit/boundary/host/test_host_monitor.py::test_long_paths_and_arguments_say_that_they_were_cut",
    ),
    _case(
        "M04",
        "connections without connect",
        "monitor network",
        runs=_ELSEWHERE,
        why="tests/unit/boundary/host/test_host_monitor.py::test_a_watched_group_reaches_loopback_only_and_every_try_is_told",
    ),
    _case(
        "M05",
        "a monitor that cannot be loaded",
        "monitor",
        runs=_ELSEWHERE,
        why="tests/unit/boundary/host/test_host_monitor.py::test_programs_that_the_kernel_refuses_are_no_monitor",
    ),
    _case("M06", "writing to the logs and sockets of the supervisor", "mounts landlock own_uid", control=True),
    # --- Kubernetes
    *(
        _case(
            identity, tried, "", runs=_NOT_HERE, why="this version has no Kubernetes backend, a test machine no cluster"
        )
        for identity, tried in (
            ("K01", "the token of a service account"),
            ("K02", "API server, kubelet and metadata from a pod"),
            ("K03", "host paths, host network and privileges in a template"),
            ("K04", "ephemeral containers, exec into other pods"),
        )
    ),
    # --- settings, lifecycle, secrets
    _case("S01", "settings that are empty or impossible", "checks", runs=_OWN),
    _case("S02", "a child that asks to run without walls", "mounts network", control=True),
    _case("S03", "what an earlier sandbox of the same run left", "mounts", runs=_OWN),
    _case("S04", "no bubblewrap", "checks", runs=_OWN),
    _case(
        "S05",
        "a task token after its task",
        "identity",
        runs=_ELSEWHERE,
        why="tests/unit/identity/test_tokens.py::test_tokens_die_with_the_run",
    ),
    _case("S06", "sending what was read to an allowed host, in a run that is not cleared for it", "labels", runs=_OWN),
    # --- a peer's adversarial egress battery
    _case("E-L1", "HTTPS to an allowed name", "", expected="allowed"),
    _case("E-L2", "HTTP to an allowed name", "", expected="allowed"),
    _case("E-L3", "a sibling of an allowed name (there: allowed by suffix; here names are exact)", "egress"),
    _case("E-A1", "CONNECT for a denied name", "egress"),
    _case("E-A2", "HTTPS to a denied name, directly", "network egress", control=True),
    _case("E-A3", "HTTPS to an allowed host's address, directly", "network", control=True),
    _case("E-A4", "HTTPS and HTTP to an address", "network", control=True),
    _case("E-A5", "port 22 and others of an allowed name", "network egress", control=True),
    _case("E-A6", "a query to a public resolver", "network", control=True),
    _case("E-A7", "instance metadata of four clouds", "network egress", control=True),
    _case("E-A8", "ports of private addresses and of the host", "network", control=True),
    _case("E-A9", "the SSH banner of an allowed host", "network egress", control=True),
    _case("E-A10", "datagrams on port 443", "network", control=True),
    _case("E-A11", "ICMP", "seccomp caps network"),
    _case("E-A12", "IPv6 literals", "network", control=True),
    _case("E-TAMPER", "changing routes, addresses and packet filters", "caps network"),
    _case("E-M1", "the gateways themselves (M1 and M4 there)", "", expected="allowed"),
    _case("E-M2", "a gateway as forward proxy (M2 and M5 there)", "egress"),
    _case("E-M3", "other ports of the gateways", "network"),
    _case(
        "E-M6",
        "what the helpers beside the agent may reach",
        "",
        runs=_NOT_HERE,
        why="there are no helper containers: gateways run in the supervisor and dial only judged addresses (N06, N07)",
    ),
    # --- a peer's integration tests
    _case("B-iptables", "flushing packet filters, then the denied host", "caps network"),
    _case("B-overrides", "curl's overrides and proxy variables, a relay outside", "network egress", control=True),
    _case("B-imds", "metadata services with and without a path", "network", control=True),
    _case("B-doh", "DNS over HTTPS services", "network egress"),
    _case("B-dns", "public resolvers by IPv4 and IPv6, UDP and TCP", "network", control=True),
    _case("B-ipv6", "IPv6 literals and link-local addresses", "network", control=True),
    _case("B-wildcard", "names below an allowed parent", "egress"),
    _case("B-names", "case, trailing dot, white space, look-alikes", "egress"),
    _case("B-long-names", "names longer than 253 characters", "egress"),
    _case("B-rawip", "addresses in place of names", "network", control=True),
    _case("B-proxyless", "clients that use no proxy", "network egress", control=True),
    _case("B-protocols", "HTTP/1.1 and HTTP/2 to an allowed name", "", expected="allowed"),
    _case("B-git", "git ls-remote from hosts that are not listed", "network egress", control=True),
    _case("B-git-ssh", "ssh on the TLS port", "egress"),
    _case("B-host-ports", "databases of the host and its network", "network", control=True),
    _case("B-redirect", "redirects to a denied host and to metadata", "network egress"),
    _case("B-websocket", "a WebSocket to a denied host", "network", control=True),
    _case("B-tunnel", "a second host on an open connection", "egress"),
    _case("B-caps", "capabilities left over", "caps no_new_privs"),
    _case("B-mounts", "mount, umount, pivot_root, chroot, a writable root", "caps seccomp"),
    _case("B-unshare", "unshare in every form", "seccomp userns"),
    _case("B-nsenter", "nsenter", "pids seccomp own_uid", control=True),
    _case("B-sudo", "sudo, su, newgrp, pkexec", "no_new_privs userns"),
    _case("B-docker", "docker and its socket", "mounts landlock", control=True),
    _case("B-sysctl", "kernel settings", "mounts landlock own_uid"),
    _case("B-handles", "files by handle (CVE-2014-9357)", "seccomp caps"),
    _case("B-credentials", "files with credentials, directly, by link, below /host", "mounts landlock", control=True),
    _case("B-grep", "a search for tokens over the whole tree", "mounts landlock", control=True),
    _case("B-environ", "environments, command lines and mounts of processes", "pids first_process"),
    _case(
        "B-gateways",
        "placeholders for keys, rate limits, request ids of an API gateway",
        "",
        runs=_ELSEWHERE,
        why="tests/unit/boundary/models/test_model_gateway.py::test_agents_headers_do_not_leave",
    ),
    _case(
        "B-proxy-configuration",
        "line feeds and comments in names that become a proxy's configuration",
        "",
        runs=_NOT_HERE,
        why="no configuration text is made from names; what is no name is refused (tests/unit/boundary/network)",
    ),
    _case(
        "B-microvm",
        "a virtual machine's devices, corrupt images",
        "",
        runs=_NOT_HERE,
        why="no virtual machine backend in this version",
    ),
    _case(
        "B-enclave",
        "questions to a model with a finite answer on private data",
        "",
        runs=_NOT_HERE,
        why="no such feature in this version",
    ),
    _case(
        "B-preload",
        "tokens hidden by a preloaded library, read by static programs",
        "",
        runs=_NOT_HERE,
        why="nothing is hidden from programs that hold it: no real token is inside (B-environ, F15)",
    ),
    _case(
        "B-red-team",
        "a model that attacks, weekly",
        "",
        runs=_NOT_HERE,
        why="needs a provider's key and money; recorded injections are replayed instead (tests/attacks/agentdojo)",
    ),
    # --- flaws reported to a peer
    _case("R-10", "the engine's socket, to start a container on the host's network", "mounts landlock", control=True),
    _case("R-134", "ptrace and process_vm of other processes", "pids seccomp own_uid", control=True),
    _case("R-207", "ports of the host other than 80 and 443", "network", control=True),
    _case("R-2265", "descriptors of processes by handle", "pids seccomp own_uid", control=True),
    _case("R-245", "abstract sockets of the runner", "network landlock", control=True),
    _case("R-1246", "data in DNS names through an allowed resolver", "egress"),
    _case("R-memory", "notes and caches of earlier runs in the home folder", "mounts landlock", control=True),
    _case(
        "R-siblings",
        "a credential beside the known ones, in the environment",
        "mounts",
        runs=_ELSEWHERE,
        why="tests/unit/sandbox/test_sandbox_attacks.py::test_environment_holds_only_what_was_given",
    ),
    _case(
        "R-text",
        "hidden characters, look-alike letters and encoded schemes in texts",
        "",
        runs=_ELSEWHERE,
        why="tests/unit/core/test_core_text.py",
    ),
    _case(
        "R-verdict",
        "a check whose result nobody reads",
        "",
        runs=_ELSEWHERE,
        why="tests/attacks/test_control_merge.py::test_a_row_that_says_approved_merges_nothing",
    ),
)

BY_ID = {case.id: case for case in CASES}


def here(tier: str) -> list[Case]:
    """The cases that run on a test machine in that tier."""
    return [case for case in CASES if case.runs in ("batch", "own") and tier in case.tiers]
