"""ringload against servers that are not ours: Python's `websockets` and npm's `ws`; run by scripts/clients.

RINGLOAD_BINARY names the binary (target/release/ringload: cargo build --release --workspace makes it).
"""

import json
import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BINARY = os.environ.get("RINGLOAD_BINARY", HERE.parent.parent / "target/release/ringload")
SECONDS_MAX = 40
SERVERS = {
    "websockets": [sys.executable, HERE / "ringload_websockets_server.py"],
    "ws": ["node", HERE / "ringload_ws_server.mjs"],
}
# A single-threaded server in Python answers a few thousand messages a second: what is asked of it is far below.
RATE = 500


class ForeignServer:
    """A server in a process of its own, with the URL that it printed."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        lines = queue.Queue()
        threading.Thread(target=lambda: lines.put(self.process.stdout.readline()), daemon=True).start()
        try:
            self.url = lines.get(timeout=SECONDS_MAX).strip()
        except queue.Empty:
            self.url = ""
        if not self.url.startswith("ws://"):
            self.stop()
            raise RuntimeError(f"{command} printed no URL")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    assert os.access(BINARY, os.X_OK), f"there is no ringload at {BINARY}: cargo build --release --workspace"
    server = ForeignServer(SERVERS[request.param])
    yield server
    assert server.process.poll() is None, "the server ended under the load"
    server.stop()


def ringload(server, scenario, path, *words):
    """Runs a scenario that must end with code 0 and without errors. Answers the report."""
    command = [BINARY, scenario, server.url + path, *words, "--json", "-", "--server-pid", server.process.pid]
    done = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}\n{done.stdout}"
    report = json.loads(done.stdout)
    assert report["schema"] == "ringload/1"
    assert report["scenario"] == scenario
    assert report["ok"] is True and report["interrupted"] is False
    assert report["runs"], "a scenario has a run or more"
    for run in report["runs"]:
        # A search goes where the promise breaks; a message may be given up there.
        if scenario != "find-rate":
            assert not any(run["errors"].values()), run["errors"]
        assert_plausible(run)
    return report


def assert_plausible(run):
    latency = run["latency"]
    names = ["min", "p50", "p75", "p90", "p95", "p99", "p999", "p9999", "max"]
    ascending = [latency[f"{name}_ns"] for name in names]
    assert ascending == sorted(ascending)
    assert latency["min_ns"] <= latency["mean_ns"] <= latency["max_ns"]
    assert run["elapsed_s"] > 0
    if latency["count"]:
        # Nothing crosses the loopback twice and a Python program in a microsecond.
        assert 1_000 < latency["p50_ns"] < 10_000_000_000
    assert sum(interval["received"] for interval in run["intervals"]) == run["received"]
    assert run["server"]["resident_bytes_after"] > 1_000_000
    assert 0 <= run["server"]["cores_used"] < 64


def test_echo_in_a_closed_loop(server):
    for kind in ["--binary", "--text"]:
        report = ringload(server, "echo", "/echo", "-c", 10, "-w", 2, "-d", "1s", "--warm-up", "200ms", kind)
        (run,) = report["runs"]
        assert report["setup"]["loop"] == "closed"
        assert run["received"] > 200
        assert run["received_per_s"] == pytest.approx(run["received"] / run["elapsed_s"], rel=0.02)
        assert run["server"]["messages_per_cpu_s"] > 0


def test_echo_in_an_open_loop(server):
    words = ["-c", 10, "--rate", RATE, "-d", "2s", "--warm-up", "200ms"]
    for arrivals in ["constant", "poisson"]:
        (run,) = ringload(server, "echo", "/echo", *words, "--arrivals", arrivals)["runs"]
        assert run["offered_per_s"] == RATE
        assert run["sent"] == pytest.approx(2 * RATE, rel=0.01 if arrivals == "constant" else 0.15)
        assert run["received"] == pytest.approx(run["sent"], rel=0.01)


def test_large_messages(server):
    (run,) = ringload(server, "echo", "/echo", "-c", 2, "-s", "1MiB", "-n", 50, "--warm-up", "0s")["runs"]
    assert run["sent"] == run["received"] == 50


def test_fanout(server):
    words = ["-c", 20, "--publishers", 2, "--rate", 50, "-n", 100, "--warm-up", "0s"]
    report = ringload(server, "fanout", "/broadcast", *words)
    (run,) = report["runs"]
    assert run["sent"] == 100
    assert run["received"] == 100 * 20


def test_idle(server):
    report = ringload(server, "idle", "/echo", "-c", 200, "-d", "1s")
    assert report["held"]["connections"] == report["held"]["answered"] == 200
    assert report["connect"]["established"] == 200


@pytest.mark.parametrize("close", ["clean", "reset", "drop"])
def test_churn(server, close):
    words = ["-c", 8, "--rate", 100, "-d", "2s", "--warm-up", "200ms", "--close", close]
    (run,) = ringload(server, "churn", "/echo", *words)["runs"]
    assert run["received"] == pytest.approx(200, rel=0.05)


def test_slow_reader(server):
    words = ["-c", 5, "--stalled", 1, "--rate", 50, "-s", "16KiB", "-d", "2s", "--warm-up", "200ms"]
    stalled = ringload(server, "slow-reader", "/broadcast", *words)["stalled"]
    assert stalled["readers"] == 1
    assert stalled["ended_by_server"] == 0
    assert stalled["received"] + stalled["missed"] == stalled["expected"] > 50


def test_ramp(server):
    words = ["-c", 5, "--from", 100, "--to", 300, "--step-count", 3, "--step-duration", "500ms"]
    report = ringload(server, "ramp", "/echo", *words)
    assert [run["offered_per_s"] for run in report["runs"]] == [100, 200, 300]


def test_find_rate(server):
    words = ["p99<100ms", "-c", 5, "--from", 100, "--to", 3200, "--trial", "500ms", "--warm-up", "100ms"]
    found = ringload(server, "find-rate", "/echo", *words, "--precision", 20)["found"]
    assert found["rate_per_s"] >= 100
    assert re.search(r"\w", found["reason"])
