#!/usr/bin/env python3
"""The WebSocket servers that ours is put beside: installs, builds and starts them, and checks what they do.

`from peers import PEERS, Missing` gives them by name; benches/peers/README.md says what each is, and what all do.
What is installed and built stays in ignored folders below benches/peers.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tomllib

sys.dont_write_bytecode = True
from side_by_side import ROOT, build, end_in_order, ringload, serving

FOLDER = ROOT / "benches/peers"
BUILT = FOLDER / "target"

# What a check sends: sizes for the echo, both kinds of messages, so many in flight.
SIZES, KINDS, IN_FLIGHT, CONNECTIONS = ("20", "64KiB", "1MiB"), ("--binary", "--text"), 16, 4
SUBSCRIBERS = 50
# Seconds that a peer may take to end when it is asked to, and that one load may take.
END_MAX, LOAD_MAX = 5, 120


class Missing(Exception):
    """A peer cannot be installed here: what it needs is not to be had. Its message says what."""


class Failed(Exception):
    """A peer does not build, or does not do what is asked of all of them."""


def run(command, problem=Failed, cwd=FOLDER, environment=None):
    """Runs a command and answers what it printed. If it fails, its last words are the problem."""
    # The peers' settings are their own: what somebody has set for other programs would take their place.
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("RUSTFLAGS")}
    try:
        running = subprocess.Popen(
            [str(word) for word in command], cwd=cwd, env={**inherited, **(environment or {})}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
    except FileNotFoundError:
        raise Missing(f"the program {command[0]} is not there") from None
    with running:
        try:
            said, complained = running.communicate()
        except BaseException:
            # With those that it has started: a compiler, a package manager in the middle of its work.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)
            raise
    if running.returncode:
        words = (complained.strip() or said.strip()).splitlines()[-5:]
        named = " ".join(str(word) for word in command[:3])
        raise problem(f"{named} … ended with {running.returncode}: {' | '.join(words)}")
    return said


def is_newer(made, *sources):
    return made.exists() and all(made.stat().st_mtime >= source.stat().st_mtime for source in sources)


class Peer:
    """A server: `prepare` installs and builds it, `command` starts it on a port that the system chooses."""

    # What it runs on.
    runtime = ""

    def __init__(self, name):
        self.name = name
        self.folder = FOLDER / name

    def version(self):
        """As its lock file has it."""
        raise NotImplementedError

    def install(self):
        """Fetches what it needs; raises `Missing`."""

    def build(self):
        """Compiles it; raises `Failed`."""

    def program(self):
        raise NotImplementedError

    def prepare(self):
        self.install()
        self.build()

    def command(self, listen="127.0.0.1:0"):
        return [*(str(word) for word in self.program()), "--listen", listen]


class Crate(Peer):
    """A crate, with a program around it in Rust."""

    runtime = "Rust"
    environment = {"CARGO_TARGET_DIR": str(BUILT)}

    def version(self, crate=None):
        packages = tomllib.loads((FOLDER / "Cargo.lock").read_text())["package"]
        [version] = (package["version"] for package in packages if package["name"] == (crate or self.name))
        return version

    def install(self):
        run(["cargo", "fetch", "--locked", "--quiet"], Missing, environment=self.environment)

    def build(self):
        # One by one: what others need must not turn on features of this one, nor stop it from building.
        run(
            ["cargo", "build", "--release", "--frozen", "--quiet", "--package", f"peer-{self.name}"],
            environment=self.environment,
        )

    def program(self):
        return [BUILT / "release" / f"peer-{self.name}"]


class UWebSockets(Crate):
    """C++ whose sources a crate brings."""

    runtime = "C++"
    crate = "libuwebsockets-sys"
    # As its own build has it; without TLS and compression.
    flags = ["-O3", "-march=native", "-flto=auto", "-DLIBUS_NO_SSL", "-DUWS_NO_ZLIB"]
    parts = ["bsd", "context", "loop", "socket", "udp", "eventing/epoll_kqueue"]

    def version(self):
        return f"20, in {self.crate} {super().version(self.crate)}"

    def sources(self):
        arguments = ["--format-version", "1", "--all-features", "--frozen"]
        packages = json.loads(run(["cargo", "metadata", *arguments], environment=self.environment))["packages"]
        [manifest] = (package["manifest_path"] for package in packages if package["name"] == self.crate)
        return pathlib.Path(manifest).parent / "uWebSockets"

    def build(self):
        [made] = self.program()
        server = self.folder / "server.cpp"
        if is_newer(made, server, FOLDER / "Cargo.lock", pathlib.Path(__file__)):
            return
        made.parent.mkdir(parents=True, exist_ok=True)
        sources = self.sources()
        sockets = sources / "uSockets/src"
        objects = []
        for part in self.parts:
            objects.append(made.with_name(f"{made.name}-{pathlib.Path(part).name}.o"))
            run(["gcc", "-std=c11", *self.flags, f"-I{sockets}", "-c", sockets / f"{part}.c", "-o", objects[-1]])
        run(["g++", "-std=c++20", *self.flags, f"-I{sources / 'src'}", f"-I{sockets}", server, *objects, "-o", made])


class NpmPackage(Peer):
    """A package from npm, with a program around it in JavaScript."""

    runtime = "Node"

    def version(self):
        packages = json.loads((self.folder / "package-lock.json").read_text())["packages"]
        return packages[f"node_modules/{self.name}"]["version"]

    def install(self):
        # npm's own note of what it has installed.
        if not is_newer(self.folder / "node_modules/.package-lock.json", self.folder / "package-lock.json"):
            # All of them bring what they need as binaries; no script of theirs has to run.
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], Missing, self.folder)
        run([self.interpreter(), "--version"], Missing)

    def interpreter(self):
        return "node"

    def program(self):
        return [self.interpreter(), self.folder / "server.mjs"]


class Bun(NpmPackage):
    """A runtime that npm brings, with a server of its own."""

    runtime = "Bun"

    def interpreter(self):
        # What stands in bin/ is a placeholder, which a script of the package would replace. npm installs the package
        # with the binary for this machine and no other.
        return next((self.folder / "node_modules/@oven").glob("bun-*/bin/bun"), "bun")


class PythonPackage(Peer):
    """A package from PyPI, with a program around it in Python."""

    runtime = "Python"

    def __init__(self, name):
        super().__init__(name)
        self.environment = BUILT / "python" / name
        self.requirements = self.folder / "requirements.txt"

    def version(self):
        return re.search(rf"^{self.name}==(\S+)$", self.requirements.read_text(), re.MULTILINE)[1]

    def install(self):
        installed = self.environment / "installed.txt"
        if installed.exists() and installed.read_text() == self.requirements.read_text():
            return
        run([sys.executable, "-m", "venv", "--clear", self.environment], Missing)
        python = self.environment / "bin/python"
        run([python, "-m", "pip", "install", "--quiet", "--requirement", self.requirements], Missing)
        shutil.copy(self.requirements, installed)

    def program(self):
        return [self.environment / "bin/python", self.folder / "server.py"]


class LibWebSockets(Peer):
    """A library from Debian, with a program around it in C."""

    runtime = "C"
    package = "libwebsockets-dev"
    header = pathlib.Path("/usr/include/lws_config.h")

    def version(self):
        found = self.header.exists() and re.search(r'LWS_LIBRARY_VERSION "([\d.]+)', self.header.read_text())
        return found[1] if found else "not installed"

    def install(self):
        if self.header.exists():
            return
        if os.geteuid():
            raise Missing(f"Debian's package {self.package} is not installed, and only root can do that")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "--quiet"], Missing, environment=quiet)
        run(["apt-get", "install", "--yes", "--quiet", self.package], Missing, environment=quiet)

    def build(self):
        [made] = self.program()
        source = self.folder / "server.c"
        if is_newer(made, source, self.header, pathlib.Path(__file__)):
            return
        made.parent.mkdir(parents=True, exist_ok=True)
        run(["gcc", "-std=gnu11", "-O3", "-march=native", "-flto=auto", source, "-lwebsockets", "-o", made])

    def program(self):
        return [BUILT / "release" / f"peer-{self.name}"]


PEERS = {
    peer.name: peer
    for peer in (
        UWebSockets("uwebsockets"),
        Crate("fastwebsockets"),
        Crate("monoio-tungstenite"),
        Crate("sockudo-ws"),
        Crate("tokio-tungstenite"),
        Crate("tokio-websockets"),
        Crate("yawc"),
        Bun("bun"),
        NpmPackage("ws"),
        LibWebSockets("libwebsockets"),
        PythonPackage("picows"),
        PythonPackage("websockets"),
    )
}


def try_out(peer):
    """Starts it and loads it once with each kind of message; raises `Failed`."""
    try:
        with serving(peer.command()) as (server, address):
            pace = ["-w", str(IN_FLIGHT), "--server-pid", str(server.pid)]
            for size in SIZES:
                for kind in KINDS:
                    load = ["-c", str(CONNECTIONS), "-s", size, kind, "-n", "640", *pace]
                    ringload(["echo", f"ws://{address}/echo", *load], LOAD_MAX)
            # Some libraries send long messages in another way.
            for size, kind in (("100", "--binary"), ("100", "--text"), ("20KiB", "--binary")):
                load = ["-c", str(SUBSCRIBERS), "-s", size, kind, "-n", "320", *pace]
                ringload(["fanout", f"ws://{address}/ws?topic=a", *load], LOAD_MAX)
            server.terminate()
            server.wait(END_MAX)
    except SystemExit as ended:
        # A signal to us is none of the peer's failures.
        if isinstance(ended.code, int):
            raise
        raise Failed(ended.code) from None
    except subprocess.TimeoutExpired as slow:
        raise Failed(f"{slow.cmd[0]} was not over after {slow.timeout} s") from None


def check(names):
    """Prints a line for each; answers whether none failed."""
    build()
    good = True
    for peer in (PEERS[name] for name in names):
        try:
            peer.prepare()
            try_out(peer)
            verdict = "ok"
        except Missing as missing:
            verdict = f"skipped: {missing}"
        except Failed as failed:
            verdict = f"FAILED: {failed}"
            good = False
        print(f"{peer.name:20} {peer.version():32} {verdict}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="their names, versions, and what they run on")
    what.add_argument("--check", nargs="*", metavar="NAME", help="install, build and try out these, or all")
    options = parser.parse_args()

    if options.list:
        for peer in PEERS.values():
            print(f"{peer.name:20} {peer.version():32} {peer.runtime}")
        return
    if unknown := [name for name in options.check if name not in PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}")
    end_in_order()
    sys.exit(0 if check(options.check or PEERS) else 1)


if __name__ == "__main__":
    main()
