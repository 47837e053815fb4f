"""Draws one plot of a bench as SVG, from JSON on standard input. Run by bench_report with matplotlib at hand."""

import json
import sys

import matplotlib

matplotlib.use("svg")
# Text stays text: the file is small, and can be read and searched. The same figures give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
from matplotlib import pyplot

OURS, LIMIT = "ringwave", "bare"


def colour(name, number):
    if name.startswith(OURS):
        return "#d1495b" if name == OURS else "#edae49"
    return "#333333" if name == LIMIT else matplotlib.colormaps["Blues"](0.85 - 0.06 * number)


drawing = json.load(sys.stdin)
names = list(drawing["series"])
groups, height = drawing["loads"], 0.8 / len(names)
figure, axes = pyplot.subplots(figsize=(9, 1 + 0.13 * len(groups) * (len(names) + 2)))
for number, name in enumerate(names):
    series = drawing["series"][name]
    at = [place + number * height for place, load in enumerate(groups) if load in series]
    found = [series[load] for load in groups if load in series]
    middle = [each[0] for each in found]
    reach = [[each[0] - each[1] for each in found], [each[2] - each[0] for each in found]]
    bars = {"color": colour(name, number), "ecolor": "#888888", "error_kw": {"linewidth": 0.6}, "label": name}
    axes.barh(at, middle, height, xerr=reach, **bars)
axes.axvline(1, color="black", linewidth=0.8)
axes.set_yticks([place + 0.4 - height / 2 for place in range(len(groups))], groups)
axes.invert_yaxis()
axes.set_title(drawing["title"])
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
figure.tight_layout()
figure.savefig(drawing["file"], metadata={"Date": None})
