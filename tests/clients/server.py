#!/usr/bin/env python3
"""Runs a ringwave server on a free loopback port for as long as a test needs it.

As a module: `with Server(["target/release/ringwave"]) as server: … server.websocket("/echo") …`.
As a program: `server.py --server-binary PATH [--driver NAME] [--timeout SECONDS] -- COMMAND…` runs COMMAND
with TEST_SERVER_URL (`http://127.0.0.1:PORT`) and TEST_SERVER_COMMAND (JSON, for tests that start a server of
their own) in its environment, and ends with COMMAND's exit code, or with 1 when the server did not end well.

The server is ended by SIGTERM to its process id, must then end with code 0, and is never left behind.
Standard library only.
"""

import argparse
import collections
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading

START_SECONDS_MAX = 15
STOP_SECONDS_MAX = 30


class ServerFailure(Exception):
    """The server did not start, ended by itself, or did not end well when asked to."""


class Server:
    """A running server; `url` is known as soon as the `with` block is entered."""

    def __init__(self, command):
        self.command = [*command, "--listen", "127.0.0.1:0"]
        self.url = None
        self.output = collections.deque(maxlen=100)

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        found = queue.Queue()
        self.reader = threading.Thread(target=self._read_output, args=(found,), daemon=True)
        self.reader.start()
        try:
            self.url = found.get(timeout=START_SECONDS_MAX)
        except queue.Empty:
            self._kill()
            raise self._failure(f"printed no URL within {START_SECONDS_MAX} s") from None
        except BaseException:
            self._kill()
            raise
        if self.url is None:
            self._kill()
            raise self._failure("ended before it printed its URL")
        return self

    def __exit__(self, kind, error, traceback):
        # A failing test is the first news; its own report must not be replaced by the server's.
        if kind is None:
            self.stop()
        else:
            self._kill()

    def websocket(self, path):
        return self.url.replace("http://", "ws://") + path

    def stop(self):
        """Asks for an orderly end and insists on exit code 0; a second call does nothing."""
        if self.process is None:
            return
        process, ended_by_itself = self.process, self.process.poll() is not None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._kill()
            raise self._failure(f"did not end within {STOP_SECONDS_MAX} s after SIGTERM") from None
        self._kill()
        if ended_by_itself:
            raise self._failure(f"ended by itself with code {code}")
        if code != 0:
            raise self._failure(f"ended with code {code} after SIGTERM")

    def _kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.reader.join(timeout=5)
            self.process = None

    def _read_output(self, found):
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))
            match = re.search(r"http://[0-9.]+:\d+(?=/)", line)
            if match:
                found.put(match.group())
        found.put(None)

    def _failure(self, what):
        lines = "".join(f"\n  | {line}" for line in self.output)
        return ServerFailure(f"server {' '.join(self.command)} {what}{lines}")


def server_command(binary, driver=None):
    """The command line of a server, without the address it listens on."""
    if not os.access(binary, os.X_OK):
        raise ServerFailure(f"there is no server at {binary}: cargo build --release")
    return [os.path.abspath(binary), *(["--driver", driver] if driver else [])]


def run_bounded(command, seconds_max, **options):
    """Runs a command in a process group of its own; ends the whole group when its time is over."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        return process.wait(seconds_max)
    finally:
        if process.poll() is None:
            _end_group(process)


def _end_group(process):
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, number)
        try:
            process.wait(5)
            return
        except subprocess.TimeoutExpired:
            continue


def end_on_signal():
    """Makes SIGTERM unwind like an error, so that what was started is ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main():
    parser = argparse.ArgumentParser(usage="server.py [OPTIONS] -- COMMAND…")
    parser.add_argument("--server-binary", default="target/release/ringwave")
    parser.add_argument("--driver")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    end_on_signal()
    try:
        command = server_command(options.server_binary, options.driver)
        with Server(command) as server:
            environment = {
                **os.environ,
                "TEST_SERVER_URL": server.url,
                "TEST_SERVER_COMMAND": json.dumps(command),
            }
            code = run_bounded(options.command, options.timeout, env=environment)
    except subprocess.TimeoutExpired:
        sys.exit(f"server.py: {options.command[0]} did not end within {options.timeout:.0f} s")
    except ServerFailure as failure:
        sys.exit(f"server.py: {failure}")
    sys.exit(code if code >= 0 else 1)


if __name__ == "__main__":
    main()
