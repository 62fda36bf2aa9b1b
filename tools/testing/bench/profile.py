#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Instructions by function and operation, from what scripts/bench --profile has gathered.

usage: profile.py SYMBOLS BLOCKS

SYMBOLS is /proc/kallsyms, demangled, before each arm, then the results of the arm, which say how many
operations each section of BLOCKS is of.
"""

import bisect
import collections
import json
import re
import sys

# Instructions of an operation; what has fewer is not shown.
LEAST = 20


def short(name):
    """A name of Rust without its hashes and generic arguments."""
    name = re.sub(r'\[[0-9a-f]{16}\]', '', name)
    while (shorter := re.sub(r'(?<=\w)(::)?<[^<>]*>', '', name)) != name:
        name = shorter
    return name


def read_symbols(path):
    """The results, each with the table of symbols that was the last before it."""
    results, table = [], []
    with open(path, encoding='utf-8') as lines:
        for line in lines:
            if line.startswith('{'):
                results.append((json.loads(line), table))
                continue
            if results and results[-1][1] is table:
                table = []
            words = line.split(maxsplit=2)
            if len(words) == 3:
                table.append((int(words[0], 16), words[2].strip()))
    return results


def read_blocks(path):
    """The sections: addresses, and the instructions that were run there."""
    sections = []
    with open(path, encoding='utf-8') as lines:
        for line in lines:
            if line.startswith('section'):
                sections.append([])
            else:
                address, insns, runs = line.split()
                sections[-1].append((int(address, 16), int(insns) * int(runs)))
    return sections


def count(table, section):
    """Instructions by function."""
    table = sorted(table)
    addresses = [address for address, _ in table]
    counts = collections.Counter()
    for address, insns in section:
        at = bisect.bisect(addresses, address) - 1
        is_user = address < 1 << 63
        counts['(user)' if is_user or at < 0 else table[at][1]] += insns
    return counts


def main():
    results = [(result, table) for result, table in read_symbols(sys.argv[1]) if result.get('profiled')]
    for (result, table), section in zip(results, read_blocks(sys.argv[2]), strict=True):
        counts = count(table, section)
        each = 1 / result['n']
        print(f"{result['arm']} {result['metric']}: {counts.total() * each:.0f} each")
        for name, insns in counts.most_common():
            if insns * each >= LEAST:
                print(f'  {insns * each:8.0f}  {short(name)}')


main()
