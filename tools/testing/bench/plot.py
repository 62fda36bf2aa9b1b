#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draw a benchmark's results.

usage: plot.py RESULTS DIRECTORY

Makes one SVG for each group of metrics below: medians as bars, arms side by side. The same results make
the same files.
"""

import io
import sys

import matplotlib

from figures import read

matplotlib.use('svg')
matplotlib.rcParams['svg.hashsalt'] = 'cachefiles'
matplotlib.rcParams['svg.fonttype'] = 'none'
from matplotlib import pyplot  # noqa: E402

# What a result is divided by, and what it then is.
COST = (1e3, 'thousand instructions, median')
TIME = (1e6, 'milliseconds, median')

# The file's name; the title; the unit; the metrics, with what is said of them.
GROUPS = [
    ('miss', 'A read of 4 KiB that is not there yet', COST, [('miss_4k', '')]),
    ('hit', 'A read of 4 KiB that is there', COST,
     [('hit_in_memory_4k', 'in memory'), ('hit_on_disk_4k', 'on the disk')]),
    ('miss-64k', 'A read of 64 KiB that is not there yet', COST, [('miss_64k', '')]),
    ('open', 'The first open of a file', COST, [('open', 'in a new volume'), ('open_more', 'in one of 300')]),
    ('fault', 'A fault of a page', COST, [('miss_fault', 'not there yet'), ('hit_fault', 'there, in memory')]),
    ('readers', 'A read of 4 KiB that is not there yet, of several at once', COST,
     [('miss_4k_4_readers', '4 readers'), ('miss_4k_16_readers', '16 readers')]),
    ('sequential', '16 MiB from a source that is 10 ms away', TIME, [('sequential_16m_10ms', '')]),
    ('classic', 'A read of 4 KiB of a network file system', COST,
     [('cached_4k', 'in the cache'), ('fill_4k', 'not there, until it is stored')]),
    ('python', 'The first program of an image, from a source that is 20 ms away', TIME, [('python_20ms', '')]),
]
OURS, OTHERS = ['#b3541e', '#e0a37f'], ['#4a6a8a', '#a9bccf']


def draw(path, title, unit, metrics, results):
    arms = [arm for arm in dict.fromkeys(arm for _, arm in results)
            if any((metric, arm) in results for metric, _ in metrics)]
    height = 0.8 / len(metrics)
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.32 * len(arms) * max(1, len(metrics) * 0.7)))
    for number, (metric, label) in enumerate(metrics):
        for place, arm in enumerate(arms):
            if (metric, arm) not in results:
                continue
            colours = OURS if arm.startswith('ours') else OTHERS
            value = results[metric, arm] / unit[0]
            at = place + height * (number - (len(metrics) - 1) / 2)
            axes.barh(at, value, height, color=colours[number])
            axes.text(value, at, f' {value:.1f} {label}', va='center', fontsize=8)
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set_xlabel(unit[1])
    axes.set_title(title)
    axes.margins(x=0.18)
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    picture = io.StringIO()
    figure.savefig(picture, metadata={'Date': None, 'Creator': None})
    pyplot.close(figure)
    with open(path, 'w', encoding='utf-8') as file:
        # Which patches may not have at the end of a line.
        file.writelines(line.rstrip() + '\n' for line in picture.getvalue().splitlines())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    results = read(sys.argv[1])
    for name, title, unit, metrics in GROUPS:
        draw(f'{sys.argv[2]}/cachefiles-rust-{name}.svg', title, unit, metrics, results)


main()
