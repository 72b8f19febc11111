"""What governing a model request costs, beside nginx as a reverse proxy, LiteLLM's proxy and a bare pass-through.

All of them talk to the same compiled provider with the same compiled client (`gateway_load`), one process each, in one
run. The governed side does all that it does in a run: token, strict JSON, field rules, price, durable hold, Rego
decision, durable intent, tool-call hold, settle, outcome.

Bars: ≥ 30 × LiteLLM's requests/s at 16 and 64 connections; processor time ≤ 12 × nginx's for JSON, ≤ 4 × for streams.
`VESTIBULE_BENCH_GATEWAY` multiplies the number of requests; `VESTIBULE_BENCH_MEMORY` is how many requests the memory
figure is taken after (the bar is stated for 1,000,000).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCALE = float(os.environ.get("VESTIBULE_BENCH_GATEWAY", "1"))
LITELLM = ROOT / "build" / "litellm" / "bin" / "litellm"
TOKEN = "bench-task-token"
TOOL = {
    "name": "mcp__vestibule__read_file",
    "description": "r",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


@dataclass
class Side:
    """A served process tree."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    headers: tuple[str, ...] = ()

    def pids(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            found += [int(item) for item in children.read_text().split()] if children.exists() else []
        return found

    def cpu(self) -> float:
        """Seconds of processor time of the tree so far."""
        total = 0.0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def pss_mb(self) -> float:
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled provider and client."""
    go = shutil.which("go")
    if go is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Go here, and the load for the gateway is compiled with it")
        pytest.skip("there is no Go here: the load for the gateway is compiled with it")
    path = tmp_path_factory.mktemp("load") / "gatewayload"
    subprocess.run([go, "build", "-o", str(path), "."], cwd=HERE / "gateway_load", check=True)
    return path


@pytest.fixture(scope="module")
def sides(tool: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Side]]:
    """nginx and LiteLLM where they are there, the pass-through, and the gateway whole and without each layer."""
    folder = tmp_path_factory.mktemp("sides")
    mock_port = _free_port()
    mock = subprocess.Popen([tool, "mock", f"127.0.0.1:{mock_port}"])
    upstream = f"http://127.0.0.1:{mock_port}"
    found = {"provider": Side("provider", f"{upstream}/v1/messages", mock)}
    try:
        for kind in ("pass-through", "governed", "no-audit", "no-ledger", "no-policy", "bare"):
            found[kind] = _ours(kind, upstream, folder)
        nginx = _nginx(mock_port, folder)
        if nginx is not None:
            found["nginx"] = nginx
        litellm = _litellm(upstream, folder)
        if litellm is not None:
            found["litellm"] = litellm
        yield found
    finally:
        for side in found.values():
            tree = side.pids()
            side.process.terminate()  # a master that is told ends its workers; one that is killed leaves them
            with contextlib.suppress(subprocess.TimeoutExpired):
                side.process.wait(5)
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            side.process.wait(10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _ours(kind: str, upstream: str, folder: Path) -> Side:
    home = folder / kind
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        port = sock.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.gateway_server", kind, str(sock.fileno()), upstream, str(home)],
            pass_fds=[sock.fileno()],
            cwd=ROOT,
        )
    path = "" if kind == "pass-through" else "/anthropic/v1/messages"
    return Side(kind, f"http://127.0.0.1:{port}{path}", process, (f"x-api-key={TOKEN}",))


def _nginx(mock_port: int, folder: Path) -> Side | None:
    program = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
    if program is None:
        return None
    port, home = _free_port(), folder / "nginx"
    home.mkdir()
    (home / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log; user root;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_buffer_size 1m; client_max_body_size 64m;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  upstream provider {{ server 127.0.0.1:{mock_port}; keepalive 128; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; }} }} }}
"""
    )
    process = subprocess.Popen([program, "-c", str(home / "nginx.conf"), "-p", str(home)])
    return Side("nginx", f"http://127.0.0.1:{port}/v1/messages", process)


def _litellm(upstream: str, folder: Path) -> Side | None:
    if not LITELLM.exists() or os.environ.get("VESTIBULE_BENCH_PEERS") != "1":
        return None
    port, config = _free_port(), folder / "litellm.yaml"
    config.write_text(
        f"""model_list:
  - model_name: claude-sonnet-5
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_base: "{upstream}", api_key: k}}
general_settings: {{master_key: sk-bench}}
"""
    )
    environ = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    process = subprocess.Popen(
        [LITELLM, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Side("litellm", f"http://127.0.0.1:{port}/v1/messages", process, ("x-api-key=sk-bench",))


def _body(folder: Path, *, stream: bool = False, tool: bool = False, size: int = 1000) -> Path:
    text = "def add(left, right):\n    return left + right\n" * max(1, size // 46)
    value: dict[str, Any] = {
        "model": "claude-sonnet-5",
        "max_tokens": 1000,
        "stream": stream,
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
    }
    if tool:
        value["tools"] = [TOOL]
    path = folder / f"body-{stream}-{tool}-{size}.json"
    path.write_text(json.dumps(value))
    return path


def _load(tool: Path, side: Side, body: Path, connections: int, requests: int) -> dict[str, float]:
    """The client's figures, with `cpu_us`: processor microseconds of the side's process tree for each request."""
    command = [str(tool), "load", side.url, str(connections), f"n{requests}", str(body), *side.headers]
    before = side.cpu()
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["errors"] == 0, (side.name, found)
    found["cpu_us"] = (side.cpu() - before) * 1e6 / found["requests"]
    return found


def _wait(tool: Path, side: Side, body: Path) -> None:
    command = [str(tool), "load", side.url, "4", "n40", str(body), *side.headers]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        if found["errors"] == 0:
            return
        time.sleep(0.3)
    raise AssertionError(f"{side.name} did not come up: {found}")


def _requests(side: Side, base: int) -> int:
    # Processor time is counted in hundredths of a second: who needs little is asked more often.
    factor = {"litellm": 0.05, "nginx": 8, "pass-through": 3}.get(side.name, 1)
    return max(64, int(base * SCALE * factor))


def test_requests_and_processor_time_beside_nginx_and_litellm(
    tool: Path, sides: dict[str, Side], tmp_path: Path
) -> None:
    plain, stream = _body(tmp_path), _body(tmp_path, stream=True)
    large = _body(tmp_path, size=100_000)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, side in sides.items():
        _wait(tool, side, plain)
        _wait(tool, side, stream)
        rows[name] = {
            "c1": _load(tool, side, plain, 1, _requests(side, 600)),
            "c16": _load(tool, side, plain, 16, _requests(side, 3000)),
            "c64": _load(tool, side, plain, 64, _requests(side, 3000)),
            "stream c1": _load(tool, side, stream, 1, _requests(side, 400)),
            "stream c16": _load(tool, side, stream, 16, _requests(side, 2000)),
            "100 KB c4": _load(tool, side, large, 4, _requests(side, 600)),
        }
    _print_rows(rows)
    governed = rows["governed"]
    assert governed["c16"]["per_second"] > 0


def _print_rows(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    columns = list(next(iter(rows.values())))
    print("\nmodel gateway: requests/s | processor microseconds a request | p50 ms")
    for name, row in rows.items():
        cells = (f"{c}: {row[c]['per_second']:.0f} | {row[c]['cpu_us']:.0f} | {row[c]['p50_ms']:.2f}" for c in columns)
        print(f"  {name:13}" + "   ".join(cells))
    governed = rows["governed"]
    for peer, what in (("nginx", "cpu_us"), ("pass-through", "cpu_us"), ("litellm", "per_second")):
        if peer not in rows:
            print(f"  (no {peer} here)")
            continue
        ratios = []
        for column in columns:
            ours, theirs = governed[column][what], rows[peer][column][what]
            ratios.append(f"{column}: {ours / max(theirs, 1e-9):.1f}")
        print(f"  governed ÷ {peer}, {what}: " + "   ".join(ratios))
    for layer in ("no-audit", "no-ledger", "no-policy"):
        saved = governed["c16"]["cpu_us"] - rows[layer]["c16"]["cpu_us"]
        print(f"  {layer.removeprefix('no-')} costs {saved:.0f} µs of {governed['c16']['cpu_us']:.0f} at c16")


def test_the_first_byte_and_a_held_call(tool: Path, sides: dict[str, Side], tmp_path: Path) -> None:
    stream, held = _body(tmp_path, stream=True), _body(tmp_path, stream=True, tool=True)
    direct, ours, bare = sides["provider"], sides["governed"], sides["no-audit"]
    for side in (direct, ours, bare):
        _wait(tool, side, stream)
    requests = int(400 * SCALE)
    found = {
        (side.name, body.name): _load(tool, side, body, 1, requests)
        for side in (direct, ours, bare)
        for body in (stream, held)
    }
    first = {name: found[name, stream.name]["first_p50_ms"] for name in ("provider", "governed", "no-audit")}
    text = {name: found[name, held.name]["text_p50_ms"] for name in ("provider", "governed")}
    write = first["governed"] - first["no-audit"]
    print(
        f"\nfirst streamed byte, p50 ms: provider {first['provider']:.2f}, governed {first['governed']:.2f} "
        f"(+{first['governed'] - first['provider']:.2f}, of it the durable intent {write:.2f}); "
        f"first text with a held tool call behind it: provider {text['provider']:.2f}, governed {text['governed']:.2f} "
        f"(+{text['governed'] - text['provider']:.2f})"
    )


def test_memory_after_many_requests(tool: Path, sides: dict[str, Side], tmp_path: Path) -> None:
    body = _body(tmp_path)
    side = sides["governed"]
    _wait(tool, side, body)
    wanted = int(os.environ.get("VESTIBULE_BENCH_MEMORY", "5000"))
    marks = [(0, side.pss_mb())]
    done = 0
    while done < wanted:
        step = max(1000, wanted // 10)
        _load(tool, side, body, 16, step)
        done += step
        marks.append((done, side.pss_mb()))
    print("\nmemory of a process that hosts only the gateway, PSS in MB after so many requests:")
    print("  " + "   ".join(f"{count:,}: {mb:.1f}" for count, mb in marks))


def test_the_providers_count_is_the_ledgers(sides: dict[str, Side]) -> None:
    """What reached the provider in this run is more than nothing: the figures above are of real requests."""
    with urllib.request.urlopen(sides["provider"].url.replace("/v1/messages", "/count"), timeout=10) as response:
        assert int(response.read()) > 0
