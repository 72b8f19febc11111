"""A real Prometheus scrapes a real /metrics: what it stores is what the ledger says."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prometheus_here import ROOT, program, promtool
from spend_books import VERSION, Books

from vestibule.console.metrics import build_metrics_app, scrape_token
from vestibule.console.server import Server, serve_console
from vestibule.core.clock import rfc3339
from vestibule.cost.metrics import Metrics
from vestibule.store.database import Database

RULES = ROOT / "integrations" / "prometheus" / "vestibule.rules.yaml"
PIECE = ROOT / "integrations" / "prometheus" / "prometheus.yaml"


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books.new(tmp_path)


@pytest.fixture
def served(books: Books, tmp_path: Path) -> Iterator[Server]:
    token = scrape_token(tmp_path)
    decided = [[("model.tool_call", "deny", "scope.write", 3)]]
    metrics = Metrics(books.db, lambda: decided.pop() if decided else [])
    with serve_console(lambda origin: build_metrics_app(metrics.page, token, origin)) as server:
        yield server


@contextlib.contextmanager
def prometheus(folder: Path, target: str, token: Path) -> Iterator[str]:
    """A Prometheus that scrapes `target` every second; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shipped = yaml.safe_load(PIECE.read_text("utf-8"))
    (job,) = shipped["scrape_configs"]
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": [{"targets": [target]}]}
    job["authorization"] = {"credentials_file": str(token)}
    settings = {
        "global": {"evaluation_interval": "1s"},
        "scrape_configs": [job],
        "rule_files": [str(RULES)],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), "utf-8")
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "prometheus.log").open("w"),
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def ask(base: str, query: str) -> dict[str, str]:
    """Labels as JSON → value, of an instant query. Nothing as long as it does not answer."""
    address = f"{base}/api/v1/query?query={urllib.parse.quote(query)}"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            found = json.load(answer)
    except OSError:
        return {}
    assert found["status"] == "success"
    return {json.dumps(item["metric"], sort_keys=True): item["value"][1] for item in found["data"]["result"]}


def wait_for(base: str, query: str, wanted: str) -> dict[str, str]:
    deadline = time.monotonic() + 60
    found: dict[str, str] = {}
    while time.monotonic() < deadline:
        found = ask(base, query)
        if list(found.values()) == [wanted]:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{query} is {found}, not {wanted}")


def test_what_prometheus_stores_is_what_the_ledger_says(books: Books, served: Server, tmp_path: Path) -> None:
    books.now = rfc3339(datetime.now(UTC))
    books.spend(cost=1_250_000_000)
    open_hold = books.hold(nano_usd=5_000_000_000)
    with prometheus(tmp_path, served.origin.authority, tmp_path / "metrics.token") as base:
        wait_for(base, 'up{job="vestibule"}', "1")
        (labels,) = wait_for(base, "vestibule_llm_cost_usd_total", "1.25")
        assert json.loads(labels)["agent_version"] == VERSION
        wait_for(base, 'vestibule_llm_budget_held_usd{scope="run"}', "5")
        wait_for(base, 'vestibule_guardrail_decisions_total{rule="scope.write"}', "3")
        books.settle(open_hold, cost=750_000_000)
        wait_for(base, "sum(vestibule_llm_cost_usd_total)", "2")
        wait_for(base, "vestibule_llm_requests_held", "0")
        wait_for(
            base, "histogram_quantile(1, sum by (le) (vestibule_llm_request_duration_seconds_bucket)) > bool 1", "1"
        )
        with urllib.request.urlopen(f"{base}/api/v1/rules", timeout=5) as answer:
            groups = json.load(answer)["data"]["groups"]
        assert {group["name"] for group in groups} == {"vestibule-spend", "vestibule-guardrails", "vestibule-service"}
        assert all(rule["health"] != "err" for group in groups for rule in group["rules"])


def test_a_prometheus_without_the_token_sees_nothing(books: Books, served: Server, tmp_path: Path) -> None:
    books.spend()
    wrong = tmp_path / "wrong.token"
    wrong.write_text("x" * 43, "ascii")
    with prometheus(tmp_path, served.origin.authority, wrong) as base:
        wait_for(base, 'up{job="vestibule"}', "0")
        assert ask(base, "vestibule_llm_cost_usd_total") == {}


def test_promtool_finds_nothing_wrong_with_the_page(books: Books, served: Server, tmp_path: Path) -> None:
    books.spend(agent='quote " backslash \\ line\nfeed')
    books.charge()
    connection = http.client.HTTPConnection(served.origin.host, served.origin.port, timeout=10)
    token = (tmp_path / "metrics.token").read_text("ascii").strip()
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    page = answer.read().decode()
    assert answer.status == 200
    assert answer.getheader("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    done = promtool("check", "metrics", given=page)
    assert done.returncode == 0, done.stdout + done.stderr
    assert promtool("check", "metrics", given=page.replace("# TYPE", "# TYPO", 1) + "x{ 1\n").returncode != 0


def test_the_console_serves_metrics_beside_its_pages(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0o700)
    kept = Books(Database.open(home, {}))
    kept.spend(cost=1_500_000_000)
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("vestibule")), "console", "--metrics-port", "0"],
        env={"VESTIBULE_HOME": str(home), "VESTIBULE_CONFIG": "", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = line.split(" ", 1)[0]
        assert address.endswith("/metrics"), line
        assert str(home / "metrics.token") in line
        assert "/login?token=" in process.stderr.readline()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address, timeout=10)
        assert refused.value.code == 401
        token = (home / "metrics.token").read_text("ascii").strip()
        asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            page = answer.read().decode()
        assert "vestibule_llm_cost_usd_total{" in page
        assert "} 1.5\n" in page
        assert token not in page
    finally:
        process.terminate()
        process.wait(20)
