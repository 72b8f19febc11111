"""Real programs reach the names of their task, TLS end to end, knowing nothing of a proxy; and no other name."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.egress.world import PYTHON, World, git_server, hello, node_registry, plain, python_index, web
from vestibule.pipeline.registries import read


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None and not os.environ.get("CI"), reason=f"{program} is not installed"
    )


@needs("curl")
def test_curl_reaches_its_name_and_nothing_else(world: World) -> None:
    with web(hello, world.authority.context) as port:
        done = world.run(
            "curl -sS https://docs.example.com/a; curl -sS https://docs.example.com:8443/ || echo no-port;"
            "curl -sS https://other.example.com/ || echo no-name; curl -sS https://127.0.0.1/ || echo no-address;"
            "curl -sS http://docs.example.com/ || echo no-plain; curl -sS -m 3 https://192.0.2.1/ || echo no-route",
            {"docs.example.com:443": port},
        )
    assert done.out.split("\n")[:-1] == ["hello /a", "no-port", "no-name", "no-address", "no-plain", "no-route"]
    assert done.decided() == [("docs.example.com:443", "allow", ())]
    assert list(done.report.unknown) == ["other.example.com"]
    (outcome,) = done.sink.outcomes("network.connect")
    assert outcome.result == "ok"
    assert outcome.details["sent"] > 300
    assert outcome.details["received"] > 600


@needs("curl")
def test_plain_http_goes_where_port_80_is_named(world: World) -> None:
    with web(hello) as port:
        done = world.run("curl -sS http://docs.example.com/plain", {"docs.example.com:80": port})
    assert done.out == "hello /plain\n", done.err


@needs("git")
def test_git_clones_and_fetches_over_https(world: World, tmp_path: Path) -> None:
    root = tmp_path / "repositories"
    source = root / "demo"
    source.mkdir(parents=True)
    person = {
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.com",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.com",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    (source / "read.me").write_text("cloned\n" * 5000)
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", str(source), *argv], check=True, env={**os.environ, **person})
    with web(git_server(root), world.authority.context) as port:
        done = world.run(
            "cd /tmp && git clone -q https://git.example.com/demo/.git copy && head -1 copy/read.me && "
            "git -C copy fetch -q && git -C copy log --format=%s; "
            "git ls-remote https://other.example.com/demo/.git || echo no-name",
            {"git.example.com:443": port},
            programs={"git.example.com:443": ("git",)},
        )
    assert done.out.split("\n")[:-1] == ["cloned", "First", "no-name"], done.err
    assert {item.program for item in done.report.connections} == {"/usr/lib/git-core/git-remote-http"}


def test_pip_installs_from_the_index_that_the_operator_s_client_uses(world: World) -> None:
    registry = read("pip", "global.index-url='https://person:word@index.example.com/simple'\n")
    assert registry.hosts == ("index.example.com:443",)
    assert "word" not in str(registry)
    with web(python_index(), world.authority.context) as port:
        done = world.run(
            f"{PYTHON} -m pip install -q --disable-pip-version-check --target /tmp/here vestibule-demo && "
            f"PYTHONPATH=/tmp/here {PYTHON} -c 'import vestibule_demo; print(vestibule_demo.WORDS)'",
            dict.fromkeys(registry.hosts, port),
            env=registry.env,
        )
    assert done.out == "from the index\n", done.err


@needs("npm")
def test_npm_installs_from_the_registry_that_the_operator_s_client_uses(world: World) -> None:
    registry = read("npm", "https://packages.example.com/\n")
    with web(node_registry("https://packages.example.com"), world.authority.context) as port:
        done = world.run(
            "cd /tmp && npm install --no-audit --no-fund --loglevel=error vestibule-demo >/dev/null && "
            "node -p 'require(\"vestibule-demo\")'",
            dict.fromkeys(registry.hosts, port),
            env={**registry.env, "npm_config_update_notifier": "false"},
        )
    assert done.out == "from the registry\n", done.err


@needs("node")
def test_node_fetches_without_knowing_of_a_proxy(world: World) -> None:
    code = (
        "const https = require('https');"
        "(async () => {"
        " console.log((await (await fetch('https://docs.example.com/fetch')).text()).trim());"
        " await fetch('https://other.example.com/').catch(e => console.log(e.cause.code));"
        " https.get('https://docs.example.com/get', r => { r.on('data', d => console.log(String(d).trim())); "
        "  r.on('end', () => process.exit()) });"
        "})()"
    )
    with web(hello, world.authority.context) as port:
        done = world.run(("node", "-e", code), {"docs.example.com:443": port})
    assert done.out.split("\n")[:-1] == ["hello /fetch", "ENOTFOUND", "hello /get"], done.err


def test_raw_sockets_speak_tls_and_other_protocols_to_their_name(world: World) -> None:
    def talk(client: socket.socket) -> None:
        client.sendall(b"ready\n")
        client.sendall(client.recv(100).upper())

    code = (
        "import socket, ssl\n"
        "raw = socket.create_connection(('docs.example.com', 443))\n"
        "with ssl.create_default_context().wrap_socket(raw, server_hostname='docs.example.com') as tls:\n"
        "    version = tls.version(); tls.sendall(b'GET /raw HTTP/1.0\\r\\n\\r\\n'); data = b''\n"
        "    while part := tls.recv(4096): data += part\n"
        "    print(version, data.decode().split()[-1])\n"
        "with socket.create_connection(('db.example.com', 5432)) as db:\n"
        "    print(db.recv(6).decode().strip()); db.sendall(b'query'); print(db.recv(100).decode())\n"
    )
    with web(hello, world.authority.context) as port, plain(talk) as other:
        done = world.run((PYTHON, "-c", code), {"docs.example.com:443": port, "db.example.com:5432": other})
    assert done.out.split("\n")[:-1] == ["TLSv1.3 /raw", "ready", "QUERY"], done.err


def test_programs_have_no_proxy_variable(world: World) -> None:
    done = world.run("env | grep -i proxy || echo none", {})
    assert done.out == "none\n"


def test_a_registry_that_the_client_does_not_name_has_no_host() -> None:
    assert read("npm", "undefined\n").hosts == ()
    assert read("pip", "global.index-url='https://10.0.0.1/simple'\n").hosts == ()
