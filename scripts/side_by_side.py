"""Two programs side by side: built, run on a core of their own each, loaded from the other core by ringload.

What it starts it ends, by process and also when it is interrupted.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Wherever else the caller builds: the programs are looked for here.
TARGET = ROOT / "target"
RINGWAVE = str(TARGET / "release/ringwave")
RINGLOAD = str(TARGET / "release/ringload")

# Seconds that a program may take to say where it listens, and to end when it is asked to.
START_MAX, END_MAX = 30, 20


def end_in_order():
    """A signal that would end us at once raises an exception instead: what was started is ended on the way out."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(number, _):
        # A second one would cut the way out short, which takes END_MAX for each program at most.
        for other in numbers:
            signal.signal(other, lambda *_: None)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, leave)


CONGESTION_CONTROL = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
# clone(2), netdevice(7).
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 0x1


def congestion_control():
    return CONGESTION_CONTROL.read_text().strip()


def isolate(congestion):
    """Moves us, and what we start from now on, into a network of our own, in which the congestion control is set: the system's
    is not touched. Answers whether we were allowed to; else it must be the system's already. Nothing else is reached from there."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        if congestion != congestion_control():
            sys.exit(f"only root can set the congestion control to {congestion}: here it is {congestion_control()}")
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    try:
        CONGESTION_CONTROL.write_text(congestion)
    except OSError as refused:
        sys.exit(f"the kernel has no congestion control {congestion}: {refused}")
    return True


def raise_descriptors():
    """Lets us, and what we start from now on, have as many descriptors as we may. Answers how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def build(*benches):
    """Builds everything for release; answers where the executable of each benchmark is."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    subprocess.run(["cargo", "build", "--release", "--workspace", "--quiet"], cwd=ROOT, env=environment, check=True)
    if not benches:
        return []
    names = [word for bench in benches for word in ("--bench", bench)]
    artifacts = subprocess.run(
        ["cargo", "bench", *names, "--no-run", "--quiet", "--message-format=json"],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    found = {}
    for line in artifacts.splitlines():
        artifact = json.loads(line)
        if artifact.get("executable"):
            found[artifact["target"]["name"]] = artifact["executable"]
    if missing := [bench for bench in benches if bench not in found]:
        sys.exit(f"cargo did not say where {', '.join(missing)} is")
    return [found[bench] for bench in benches]


def end(process):
    """Asks a process to end, and insists."""
    process.terminate()
    try:
        process.wait(END_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serving(command, core=0):
    """Runs a server that prints its address: gives its process and the address."""
    with tempfile.TemporaryFile("w+") as complaints:
        # taskset becomes the server: the process is the one that we started.
        server = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        # Whoever says nothing is ended, and so is the loop over what it says.
        impatience = threading.Timer(START_MAX, server.kill)
        try:
            impatience.start()
            for line in server.stdout:
                if address := re.search(r"127\.0\.0\.1:\d+", line):
                    break
            else:
                complaints.seek(0)
                sys.exit(f"{command[0]} did not start: {complaints.read().strip()}")
            impatience.cancel()
            yield server, address[0]
        finally:
            impatience.cancel()
            end(server)
            server.stdout.close()


def ringload(arguments, timeout, core=1):
    """Runs ringload and answers its report; a run with errors ends the program, with what ringload said."""
    run = subprocess.run(
        ["taskset", "-c", str(core), RINGLOAD, *arguments, "--json", "-"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
    )
    if run.returncode:
        errors = json.loads(run.stdout)["runs"][-1]["errors"] if run.stdout.startswith("{") else ""
        sys.exit(f"ringload {' '.join(arguments)} ended with {run.returncode}: {run.stderr.strip()} {errors}")
    return json.loads(run.stdout)


def figures(run):
    """What a run of a report comes to, for both sides."""
    return {
        "per_s": run["received_per_s"],
        "per_server_cpu_s": run["server"]["messages_per_cpu_s"],
        "per_client_cpu_s": run["received"] / run["client"]["cpu_s"],
        "server_core": run["server"]["busiest_thread"],
        "client_core": run["client"]["busiest_thread"],
    }


def row(name, values):
    print(f"  {name:34} median {statistics.median(values):12.3f}   {min(values):12.3f} … {max(values):12.3f}")


def ratios(name, ours, theirs, key):
    """A row of quotients, round by round: what the machine did meanwhile met both sides of each."""
    row(name, [a[key] / b[key] for a, b in zip(ours, theirs)])
