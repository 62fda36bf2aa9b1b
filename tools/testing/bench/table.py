#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A table of the medians in a benchmark's results.

usage: table.py <RESULTS.json

RESULTS.json has an object a line, as bench prints them. Metrics are rows and arms columns, in the order
in which they come; what is not there was not measured.
"""

import json
import sys


def main():
    arms, metrics, cells = [], [], {}
    for line in sys.stdin:
        result = json.loads(line)
        arm, metric = result['arm'], result['metric']
        arms += [arm] if arm not in arms else []
        metrics += [metric] if metric not in metrics else []
        cells[metric, arm] = f"{result['p50']:,}".replace(',', ' ')
    first = max(map(len, ['instructions, p50'] + metrics))
    widths = [max([len(arm)] + [len(cells.get((metric, arm), '')) for metric in metrics]) for arm in arms]
    print('  '.join(['instructions, p50'.ljust(first)] + [arm.rjust(w) for arm, w in zip(arms, widths)]))
    for metric in metrics:
        row = [cells.get((metric, arm), '-').rjust(w) for arm, w in zip(arms, widths)]
        print('  '.join([metric.ljust(first)] + row))


main()
