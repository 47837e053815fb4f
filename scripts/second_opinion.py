"""A load tool that is not ours, for a second opinion: `load_test`, by which uWebSockets measures itself.

Its source comes with the crate that the peer `uwebsockets` is built from. One message in flight on each connection, the
answer's length checked, its bytes not. It asks for `/`; ours asks for `/echo`: that word is changed when it is built.
"""

import pathlib
import re
import subprocess
import threading
import time

from peers import BUILT, PEERS, Failed, is_newer, run

CONNECTIONS = 200
# It says how many messages came each four seconds; in the first four connections come about.
LINES = 2
PATIENCE = 60


def tool():
    """Builds it; answers where it is."""
    peer = PEERS["uwebsockets"]
    made = BUILT / "release/load_test"
    if is_newer(made, pathlib.Path(__file__)):
        return made
    peer.install()
    sources = peer.sources()
    text = (sources / "benchmarks/load_test.c").read_text()
    if text.count("GET / HTTP/1.1") != 2:
        raise Failed("load_test.c is not what it was")
    source = made.with_suffix(".c")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text.replace("GET / HTTP/1.1", "GET /echo HTTP/1.1"))
    sockets = sources / "uSockets/src"
    parts = [sockets / f"{part}.c" for part in peer.parts]
    run(["gcc", "-std=gnu11", "-w", *peer.flags, f"-I{sockets}", source, *parts, "-o", made])
    return made


def cpu_seconds(pid):
    """Time that all threads of a process were on a core."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def measure(size, server, address, core=1):
    """One run against a server that listens already; what counts of it, named as in ringload's runs."""
    host, port = address.split(":")
    command = ["taskset", "-c", str(core), "stdbuf", "-oL", str(tool()), str(CONNECTIONS), host, port, "0", "0", str(size)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    impatience = threading.Timer(PATIENCE, client.kill)
    impatience.start()
    rates, looks = [], []
    try:
        for line in client.stdout:
            if found := re.match(r"Msg/sec: ([\d.]+)", line):
                rates.append(float(found[1]))
                looks.append((time.monotonic(), cpu_seconds(server.pid), cpu_seconds(client.pid)))
            if len(rates) == LINES:
                break
        else:
            raise Failed(f"load_test ended or said nothing against {address}")
    finally:
        impatience.cancel()
        client.kill()
        client.wait()
        client.stdout.close()
    (begin, server_before, client_before), (end, server_after, client_after) = looks
    elapsed, spent = end - begin, server_after - server_before
    return {
        "per_s": rates[-1],
        "per_cpu_s": rates[-1] * elapsed / spent,
        "server_core": spent / elapsed,
        "client_core": (client_after - client_before) / elapsed,
    }
