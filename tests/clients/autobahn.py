"""Runs the Autobahn test suite's fuzzingclient against a server's /echo and judges its report.

Started by scripts/autobahn, which installs the suite (`--wstest` names its program) and describes the options.
Standard library only.
"""

import argparse
import collections
import datetime
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

from server import Server, ServerFailure, end_on_signal, run_bounded, server_command

# All but 12.* and 13.*, which test compression.
CASES = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*"
CASES_COUNT = 301
# The largest message of 9.* has 16 MiB.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
GROUPS = {
    1: "Framing", 2: "Pings and pongs", 3: "Reserved bits", 4: "Opcodes", 5: "Fragmentation", 6: "UTF-8",
    7: "Closing", 9: "Limits and performance", 10: "Miscellaneous",
}  # fmt: skip
# The suite itself declares these three informational: the RFC leaves their outcome open.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
VERDICTS = ["OK", "INFORMATIONAL", "NON-STRICT", "FAILED"]


def verdict(number, case):
    """One word for a case; every deviation in how the connection was closed is a failure as well."""
    behaviors = {case["behavior"], case["behaviorClose"]}
    if behaviors == {"OK"}:
        return "OK"
    if behaviors <= {"OK", "INFORMATIONAL"} and number in INFORMATIONAL:
        return "INFORMATIONAL"
    if behaviors <= {"OK", "NON-STRICT"}:
        return "NON-STRICT"
    return "FAILED"


def run_suite(options, url, report):
    """Runs the suite; answers how many cases it meant to run, and its results by case number."""
    report.mkdir(parents=True, exist_ok=True)
    spec = {
        "outdir": str(report), "servers": [{"agent": "server", "url": url}],
        "cases": options.cases.split(","), "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {},
    }  # fmt: skip
    (report / "spec.json").write_text(json.dumps(spec))
    output = report / "wstest.log"
    command = [options.wstest, "--mode", "fuzzingclient", "--spec", str(report / "spec.json")]
    with output.open("w") as log:
        code = run_bounded(
            command, options.timeout, cwd=report, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    announced = re.search(r"will run (\d+) test cases", output.read_text(errors="replace"))
    if code != 0 or announced is None or not (report / "index.json").exists():
        sys.exit(f"autobahn: wstest ended with code {code} and no report; see {output}")
    results = json.loads((report / "index.json").read_text()).get("server", {})
    return int(announced[1]), results


def sort_key(number):
    return [int(part) for part in number.split(".")]


def table(results):
    """Rows of a table: each group, then the sum."""
    counts = collections.defaultdict(collections.Counter)
    for number, case in results.items():
        counts[int(number.split(".")[0])][verdict(number, case)] += 1
    rows = [(f"{group} {GROUPS.get(group, '')}".strip(), counts[group]) for group in sorted(counts)]
    rows.append(("all", sum(counts.values(), collections.Counter())))
    return [(name, sum(count.values()), *(count[word] for word in VERDICTS)) for name, count in rows]


def remarks(results, report):
    """A line for each case that is not simply OK."""
    for number in sorted(results, key=sort_key):
        case = results[number]
        word = verdict(number, case)
        if word != "OK":
            detail = json.loads((report / case["reportfile"]).read_text())
            words = " ".join(re.sub(r"<[^>]*>", " ", detail["description"]).split())
            what = words.split(". ")[0]
            answer = f"closed with {case['remoteCloseCode']}" if case["remoteCloseCode"] else "no close code"
            yield f"{number} {word}: {what} ({case['behavior']}, closing {case['behaviorClose']}, {answer})"


def version_of(command):
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else "of unknown version"
    except (OSError, subprocess.TimeoutExpired):
        return "of unknown version"


def markdown(facts, results, report, command):
    lines = ["# Autobahn test suite", "", f"Written by `{command}`.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| group | cases | OK | informational | non-strict | failed |", "|---|--:|--:|--:|--:|--:|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table(results)]
    lines += ["", "Informational is what the suite itself calls so, because the RFC leaves the outcome open.", ""]
    lines += [f"- {line}" for line in remarks(results, report)]
    return "\n".join(lines) + "\n"


def parse_options():
    parser = argparse.ArgumentParser(prog="scripts/autobahn")
    parser.add_argument("--wstest", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--suite-version", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--reports", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--server", metavar="URL", help="test this running server, e.g. ws://127.0.0.1:9001/echo")
    parser.add_argument("--server-binary", metavar="PATH", default="target/release/ringwave")
    parser.add_argument("--driver", metavar="NAME", help="handed to the server")
    parser.add_argument("--cases", default=CASES, help=f"comma-separated; default {CASES}")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for the suite; default 600")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="also write the summary as Markdown")
    return parser.parse_args()


def main():
    options = parse_options()
    end_on_signal()
    report = options.reports / ("external" if options.server else options.driver or "default")
    shutil.rmtree(report, ignore_errors=True)
    facts, started = {}, time.monotonic()
    if options.server:
        facts["server"] = options.server
        expected, results = run_suite(options, options.server, report)
    else:
        command = server_command(options.server_binary, options.driver)
        facts["server"] = f"{version_of(command[:1])}, driver {options.driver or 'as the server chooses'}"
        with Server([*command, "--max-message", str(MAX_MESSAGE_BYTES)]) as server:
            expected, results = run_suite(options, server.websocket("/echo"), report)
    facts["suite"] = f"autobahntestsuite {options.suite_version}, fuzzingclient, cases `{options.cases}`"
    facts["run"] = f"{datetime.date.today()}, {time.monotonic() - started:.0f} s"

    for name, value in facts.items():
        print(f"{name}: {value}")
    print(f"{'group':<28}{'cases':>6}{'OK':>6}{'info':>6}{'non-strict':>12}{'failed':>8}")
    for name, total, ok, informational, non_strict, failed in table(results):
        print(f"{name:<28}{total:>6}{ok:>6}{informational:>6}{non_strict:>12}{failed:>8}")
    for line in remarks(results, report):
        print(line)
    print(f"report: {report}/index.html")
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        driver = f" --driver {options.driver}" if options.driver else ""
        written_by = f"scripts/autobahn{driver} --write {options.write}"
        options.write.write_text(markdown(facts, results, report, written_by))

    # A case that left no result is a failed one.
    expected = max(expected, CASES_COUNT if options.cases == CASES else 1)
    passed = sum(verdict(number, case) in ("OK", "INFORMATIONAL") for number, case in results.items())
    print(f"{passed} passed, {expected - passed} failed")
    sys.exit(0 if passed == expected else 1)


if __name__ == "__main__":
    try:
        main()
    except subprocess.TimeoutExpired as error:
        sys.exit(f"autobahn: wstest did not end within {error.timeout:.0f} s")
    except ServerFailure as failure:
        sys.exit(f"autobahn: {failure}")
