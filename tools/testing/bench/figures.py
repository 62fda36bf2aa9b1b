#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Keep the figures in texts those of a benchmark's results, and the results from getting worse.

usage: figures.py update RESULTS TEXT...
       figures.py check RESULTS TEXT...
       figures.py compare RESULTS NEW

A table in a text begins with a line "instructions, p50" and the names of arms, and has a metric in each
line until the next blank one or ```. update fills in the medians that RESULTS has; check fails if that would
change something. compare fails if a median in NEW is more than 3 % above that in RESULTS.
"""

import json
import re
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


def fill_in(table, medians):
    """The same table with the figures in `medians`."""
    indent = re.match(' *', table[0]).group()
    head, *arms = re.split('  +', table[0].strip())
    rows = []
    for line in table[1:]:
        metric = line.split()[0]
        rows.append([metric] + [number(medians.get((metric, arm))) for arm in arms])
    columns = list(zip(*([[head] + arms] + rows)))
    widths = [max(map(len, column)) for column in columns]
    filled = []
    for first, *cells in [[head] + arms] + rows:
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        filled.append(indent + '  '.join([first.ljust(widths[0])] + cells))
    return filled


def fill_in_text(text, medians):
    lines, table = [], []
    for line in text.split('\n') + ['']:
        if table and line.strip() and not line.startswith('```'):
            table.append(line)
            continue
        lines += fill_in(table, medians) if table else []
        table = [line] if line.strip().startswith('instructions, p50') else []
        lines += [] if table else [line]
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
        # That one is no cost, and as large as it can be.
        worse += change != 0 if metric == 'opens_in_flight' else change > TOLERANCE
    if worse:
        sys.exit(f'{worse} figures are more than {TOLERANCE} % above those of {results}. If they are to be, '
                 'measure all anew: make bench-results.')
    print(f'None is more than {TOLERANCE} % above what {results} has.')


def main():
    match sys.argv[1:]:
        case ['update' | 'check' as command, results, *texts]:
            update(results, texts, command == 'update')
        case ['compare', results, new]:
            compare(results, new)
        case _:
            sys.exit(__doc__)


main()
