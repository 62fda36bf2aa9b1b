#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Print a benchmark's results, keep the figures in texts the same, and them from getting worse.

usage: figures.py table RESULTS
       figures.py update RESULTS TEXT...
       figures.py check RESULTS TEXT...
       figures.py compare RESULTS NEW
       figures.py ratios ROUNDS

table prints all medians. A table in a text begins with a line "instructions, p50" and the names of arms,
and has a metric in each line until the next blank one or ```. update fills in the medians that RESULTS has;
check fails if that would change something. compare fails if a median in NEW is more than 3 % above that in
RESULTS. ratios prints, for results of which each round has all arms, what an arm's are as a multiple of those
of the first arm, with the 95 % interval of the mean by bootstrap.
"""

import json
import math
import random
import re
import statistics
import sys

# In per cent.
TOLERANCE = 3


def read(path):
    """The medians, by metric and arm."""
    with open(path, encoding='utf-8') as lines:
        results = [json.loads(line) for line in lines]
    return {(result['metric'], result['arm']): result['p50'] for result in results}


def number(median):
    return '-' if median is None else f'{median:,}'.replace(',', ' ')


HEAD = 'instructions, p50'


def table(medians, metrics, arms, indent=''):
    """The lines of a table with these rows and columns."""
    rows = [[HEAD, *arms]]
    rows += [[metric] + [number(medians.get((metric, arm))) for arm in arms] for metric in metrics]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *cells in rows:
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        lines.append(indent + '  '.join([first.ljust(widths[0])] + cells))
    return lines


def fill_in(old, medians):
    """The same table with the figures in `medians`."""
    indent = re.match(' *', old[0]).group()
    _, *arms = re.split('  +', old[0].strip())
    return table(medians, [line.split()[0] for line in old[1:]], arms, indent)


def print_all(results):
    medians = read(results)
    metrics, arms = (list(dict.fromkeys(names)) for names in zip(*medians))
    print('\n'.join(table(medians, metrics, arms)))


def fill_in_text(text, medians):
    lines, old = [], []
    for line in text.split('\n') + ['']:
        if old and line.strip() and not line.startswith('```'):
            old.append(line)
            continue
        lines += fill_in(old, medians) if old else []
        old = [line] if line.strip().startswith(HEAD) else []
        lines += [] if old else [line]
    return '\n'.join(lines[:-1])


def update(results, texts, write):
    medians, stale = read(results), []
    for path in texts:
        with open(path, encoding='utf-8') as file:
            old = file.read()
        new = fill_in_text(old, medians)
        if new == old:
            continue
        stale.append(path)
        if write:
            with open(path, 'w', encoding='utf-8') as file:
                file.write(new)
    if stale and not write:
        sys.exit(f"The figures in {', '.join(stale)} are not those of {results}.")


def compare(results, new):
    old, worse = read(results), 0
    for (metric, arm), median in read(new).items():
        before = old.get((metric, arm))
        if before is None:
            sys.exit(f'{results} has no {metric} of {arm}.')
        change = 100 * (median / before - 1)
        print(f'{arm:12} {metric:22} {number(before):>9} {number(median):>9} {change:+6.1f} %')
        # What is in slab caches depends on what was there before. One is no cost, and as large as it can be.
        limit = 5 * TOLERANCE if metric.startswith('memory') else TOLERANCE
        worse += change != 0 if metric == 'opens_in_flight' else change > limit
    if worse:
        sys.exit(f'{worse} figures are more than {TOLERANCE} % above those of {results}. If they are to be, '
                 'measure all anew: make bench-results.')
    print(f'None is more than {TOLERANCE} % above what {results} has.')


def ratios(rounds):
    by_metric, chance = {}, random.Random(0)
    with open(rounds, encoding='utf-8') as lines:
        for result in map(json.loads, lines):
            arms = by_metric.setdefault(result['metric'], {})
            arms.setdefault(result['arm'], []).append(result['p50'])
    for metric, arms in by_metric.items():
        base = next(iter(arms.values()))
        for arm, times in arms.items():
            logs = [math.log(time / first) for time, first in zip(times, base, strict=True)]
            means = sorted(statistics.fmean(chance.choices(logs, k=len(logs))) for _ in range(10000))
            mean, low, high = (math.exp(x) for x in (statistics.fmean(logs), means[250], means[9749]))
            print(f'{metric:20} {arm:22} {statistics.median(times) / 1000:8.1f} us '
                  f'{mean:6.2f}  [{low:.2f}, {high:.2f}]')


def main():
    match sys.argv[1:]:
        case ['table', results]:
            print_all(results)
        case ['update' | 'check' as command, results, *texts]:
            update(results, texts, command == 'update')
        case ['compare', results, new]:
            compare(results, new)
        case ['ratios', rounds]:
            ratios(rounds)
        case _:
            sys.exit(__doc__)


if __name__ == '__main__':
    main()
