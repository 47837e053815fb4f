"""What is on record of a bench, as docs/benchmarks.md and plots: ratios to uWebSockets and to the limit, with spread.

A ratio is always one of two runs of the same round, so that what the machine did meanwhile met both. Of an open loop, rounds in
which one of the two was disturbed are left out: its latencies are the client's.
"""

import json
import statistics
import subprocess
import sys
import venv

from side_by_side import ROOT

YARDSTICK = "uwebsockets"
# The same once more.
YARDSTICK_AGAIN = "uwebsockets-again"
LIMIT = "bare"
OURS = "ringwave"
# What a load is measured by: its name in the record, what to call it, and whether less is better.
MEASURES = {
    "echo": ("per_cpu_s", "messages by server CPU-second", False),
    "latency": ("p99_ms", "p99 in ms", True),
    "fanout": ("per_cpu_s", "deliveries by server CPU-second", False),
    "second": ("per_cpu_s", "messages by server CPU-second, by uWebSockets' own load_test", False),
    "handshakes": ("per_cpu_s", "handshakes by server CPU-second", False),
    "idle": ("answered_bytes", "bytes a connection, after each has answered once", True),
    "c100k": ("answered_bytes", "bytes a connection, after each has answered once", True),
    "c1m": ("answered_bytes", "bytes a connection, after each has answered once", True),
}
# What is said of a crowd: the name in the record, and the head of the column.
CROWD = {
    "held": "held",
    "connect_per_s": "connected a second",
    "answered": "answered a ping",
    "fresh_bytes": "bytes each, fresh",
    "answered_bytes": "bytes each, answered",
    "kernel_bytes": "kernel, both ends",
    "client_bytes": "client, each",
    "reached": "got the broadcast",
    "broadcast_ms": "the last after, ms",
}
PLOTTED = {
    "echo": "Echo, by server CPU-second, uWebSockets = 1",
    "fanout": "Fan-out, by server CPU-second, uWebSockets = 1",
}
# Where the plots' library lives: nothing else needs it.
PLOTTING = ROOT / "target/plotting"
# Written when all is installed there.
PLOTTING_READY = PLOTTING / "ready"


def read(record):
    """What is known of the machine, and the runs by load and server, in the order of their rounds."""
    about = json.loads((record / "about.json").read_text())
    # Older records know only of their first go.
    about.setdefault("goes", [{key: about.get(key) for key in ("command", "rounds", "seconds")}])
    runs = {}
    for line in (record / "runs.jsonl").read_text().splitlines():
        run = json.loads(line)
        runs.setdefault(run["load"], {}).setdefault(run["server"], []).append(run)
    return about, runs


def kind_of(load):
    return load.split("-")[0]


def values(runs, measure):
    return [run[measure] for run in runs if (run.get(measure) or 0) > 0]


def counted(run, measure):
    """What a run has to say of a measure, if that is the server's."""
    is_the_clients = measure == MEASURES["latency"][0] and run.get("disturbed")
    return None if is_the_clients else run.get(measure)


def ratios(runs, others, measure):
    """Round by round; rounds in which one of the two has nothing to say are left out."""
    by_round = {run["round"]: counted(run, measure) for run in others}
    pairs = [(counted(run, measure), by_round.get(run["round"])) for run in runs]
    # A process that has shrunk beside 15 000 connections says nothing of what one takes.
    return [one / other for one, other in pairs if (one or 0) > 0 and (other or 0) > 0]


def marks_of(runs):
    """What is to be known of some runs before their figures are believed."""
    marks = []
    if disturbed := sum(run.get("disturbed", False) for run in runs):
        marks.append(f"{disturbed} of {len(runs)} disturbed")
    if failed := sum("error" in run for run in runs):
        marks.append(f"{failed} failed")
    return ", ".join(marks)


def spread(numbers, digits=2):
    if not numbers:
        return "–"
    return f"{statistics.median(numbers):.{digits}f} ({min(numbers):.{digits}f}–{max(numbers):.{digits}f})"


def amount(number):
    return f"{number:,.0f}".replace(",", " ") if number >= 100 else f"{number:.2f}"


def middle(runs, key, shown="{:.2f}".format):
    known = values(runs, key)
    return shown(statistics.median(known)) if known else "–"


def idle_table(by_server):
    lines = ["| server | fresh | after each has answered once | ÷ uWebSockets | |", "|---|--:|--:|---|---|"]
    measure = MEASURES["idle"][0]
    measured = [name for name in by_server if values(by_server[name], measure)]
    for name in sorted(measured, key=lambda name: statistics.median(values(by_server[name], measure))):
        runs = by_server[name]
        title = f"**{name}**" if name.startswith(OURS) else name
        beside = spread(ratios(runs, by_server.get(YARDSTICK, []), measure))
        cells = [title, middle(runs, "fresh_bytes", amount), middle(runs, measure, amount), beside, marks_of(runs)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(load, by_server):
    measure, _, less = MEASURES[kind_of(load)]
    known = {name: values(runs, measure) for name, runs in by_server.items()}
    measured = [name for name in known if known[name]]
    lines = [
        "| server | median | ÷ uWebSockets | ÷ the limit | a second | p50, p99 in ms | cores: server, client | |",
        "|---|--:|---|---|--:|--:|--:|---|",
    ]
    for name in sorted(measured, key=lambda name: statistics.median(known[name]), reverse=not less):
        runs = by_server[name]
        per_s = middle(runs, "per_s", amount)
        latency = f"{middle(runs, 'p50_ms')}, {middle(runs, 'p99_ms')}"
        cores = f"{middle(runs, 'server_core')}, {middle(runs, 'client_core')}"
        beside = (spread(ratios(runs, by_server.get(other, []), measure)) for other in (YARDSTICK, LIMIT))
        title = f"**{name}**" if name.startswith(OURS) else name
        cells = [title, amount(statistics.median(known[name])), *beside, per_s, latency, cores, marks_of(runs)]
        lines.append(f"| {' | '.join(cells)} |")
    for name in by_server:
        if not known[name]:
            lines.append(f"| {name} | – | | | | | | {by_server[name][0].get('error', 'nothing measured')[:120]} |")
    return lines


def crowd_table(by_server):
    lines = [f"| {' | '.join(['round', *CROWD.values()])} |", "|---|" + "--:|" * len(CROWD)]
    for run in by_server.get(OURS, []):
        cells = [amount(run[key]) if run.get(key) else run.get("error", "–") for key in CROWD]
        lines.append(f"| {' | '.join([str(run['round']), *cells])} |")
    return lines


def is_crowd(by_server):
    return any(run.get("broadcast_ms") for runs in by_server.values() for run in runs)


def summary(runs):
    """A line for each load: ours, the best peer, the limit."""
    lines = [
        "| load | ours ÷ uWebSockets | uWebSockets ÷ itself | ours ÷ the best other peer | ours ÷ the limit | |",
        "|---|---|---|---|---|---|",
    ]
    for load, by_server in runs.items():
        if is_crowd(by_server):
            continue
        measure, _, less = MEASURES[kind_of(load)]
        ours = by_server.get(OURS, [])
        none_of_them = (LIMIT, YARDSTICK, YARDSTICK_AGAIN)
        others = [name for name in by_server if not name.startswith(OURS) and name not in none_of_them]
        medians = {name: statistics.median(them) for name in others if (them := values(by_server[name], measure))}
        best = (min if less else max)(medians, key=medians.get, default=None)
        to_yardstick, to_best, to_limit = (
            spread(ratios(ours, by_server.get(other, []), measure)) for other in (YARDSTICK, best, LIMIT)
        )
        noise = spread(ratios(by_server.get(YARDSTICK_AGAIN, []), by_server.get(YARDSTICK, []), measure))
        title = f"`{load}`" + (" (less is better)" if less else "")
        cells = [title, to_yardstick, noise, f"{to_best} {best or ''}", to_limit, marks_of(ours)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def losses(runs):
    """A line for each load in which somebody else was better by the median, with who it was and by how much."""
    lines = []
    for load, by_server in runs.items():
        if is_crowd(by_server):
            continue
        measure, _, less = MEASURES[kind_of(load)]
        behind = {}
        for name, them in by_server.items():
            found = ratios(by_server.get(OURS, []), them, measure)
            if name.startswith(OURS) or name in (LIMIT, YARDSTICK_AGAIN) or not found:
                continue
            ratio = statistics.median(found)
            if (ratio > 1) if less else (ratio < 1):
                behind[name] = ratio
        if behind:
            named = ", ".join(f"{ratio:.2f} of {name}" for name, ratio in sorted(behind.items(), key=lambda item: item[1]))
            lines.append(f"- `{load}`: {named}")
    return lines or ["Nowhere in this record."]


def prepare():
    """Fetches what draws the plots. Without it there is a report without plots."""
    if PLOTTING_READY.exists():
        return
    try:
        venv.create(PLOTTING, with_pip=True, clear=True)
        subprocess.run([PLOTTING / "bin/python", "-m", "pip", "install", "--quiet", "matplotlib==3.10.*"], check=True)
        PLOTTING_READY.touch()
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"bench: no plots: {problem}", file=sys.stderr)


def plot(kind, title, runs, file):
    """Horizontal bars, a group for each load. Drawn by matplotlib in an environment of its own."""
    if not PLOTTING_READY.exists():
        return False
    shown = {load: them for load, them in runs.items() if kind_of(load) == kind and YARDSTICK in them}
    if not shown:
        return False
    measure = MEASURES[kind][0]
    series = {}
    for load, by_server in shown.items():
        for name, them in by_server.items():
            if found := ratios(them, by_server[YARDSTICK], measure):
                series.setdefault(name, {})[load] = [statistics.median(found), min(found), max(found)]
    drawing = {"title": title, "loads": list(shown), "series": series, "file": str(file)}
    subprocess.run([PLOTTING / "bin/python", ROOT / "scripts/bench_plot.py"], input=json.dumps(drawing), text=True, check=True)
    return True


def write(record, into):
    into.mkdir(parents=True, exist_ok=True)
    about, runs = read(record)
    shown = record.resolve().relative_to(ROOT) if record.resolve().is_relative_to(ROOT) else record.name
    goes = [f"- `{go['command']}` ({go['rounds']} rounds of {go['seconds']:g} s)" for go in about["goes"]]
    lines = [
        "# Side by side",
        "",
        f"Measured on {about['date']} at commit {about['commit']}: {about['cpu']}, {about['cores']} cores, Linux "
        f"{about['kernel']}, congestion control {about['congestion_control']}; all servers in turns, server on one core and load "
        "on the other, over the loopback:",
        "",
        *goes,
        "",
        f"Every run stands in `{shown}/runs.jsonl`, and [benches/peers](../benches/peers/README.md) says what the others are "
        "and how they are set up.",
        "",
        "Ratios are those of runs of the same round: the median, and in brackets the least and the most of the rounds. "
        "Where uWebSockets differs from itself, a ratio no further from 1 says nothing. `bare` "
        "is a TCP echo on our own driver, without WebSocket, and with `handshakes` a server that answers them and does nothing "
        "else: the limit. Absolute figures mean nothing elsewhere.",
        "",
        "## In short",
        "",
        *summary(runs),
        "",
        "Where others were ahead, by the median of the same ratios:",
        "",
        *losses(runs),
        "",
    ]
    for kind, title in PLOTTED.items():
        file = into / f"benchmarks-{kind}.svg"
        if plot(kind, title, runs, file):
            lines += [f"![{title}]({file.name})", ""]
    versions = (f"| {name} | {what} |" for name, what in about["servers"].items())
    lines += ["## Servers", "", "| name | version |", "|---|---|", *versions, ""]
    for load, by_server in runs.items():
        if is_crowd(by_server):
            lines += [f"## {load}", "", *crowd_table(by_server), ""]
            continue
        shown = idle_table(by_server) if kind_of(load) == "idle" else table(load, by_server)
        lines += [f"## {load}", "", f"Median: {MEASURES[kind_of(load)][1]}.", "", *shown, ""]
    (into / "benchmarks.md").write_text("\n".join(lines))
    print("\n".join(summary(runs)))
    print(f"bench: {into / 'benchmarks.md'}", file=sys.stderr)
