#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks that each module of the driver names only modules below it.

usage: layers.py DIRECTORY

The order is that of the table at the head of DIRECTORY/cachefiles_main.rs, from the ground up. A row
has one module and stands for its files; files that have rows of their own are checked by themselves.
One row may have two modules, which may name each other. The first modules, those in PURE, name
nothing but `core` and each other.

What names a module is an import, a path that starts with crate, super or self, a path that starts
with a child module, and the use of a macro that the module defines. Tests may name anything.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'upstream'))
from rust_source import code, parse_use  # noqa: E402

ROOT = 'cachefiles_main'
# These know nothing of the kernel, and are compiled on the host, too.
PURE = {'protocol', 'disk', 'table', 'plan'}
# Crates, and modules that take the place of crates outside of the kernel tree.
KERNEL = {'kernel', 'kernel_next', 'bindings', 'pin_init', 'macros', 'ffi', 'alloc', 'std'}
# What `module!` makes in the crate's root is there for all.
EVERYBODYS = {('LocalModule',)}

_PATH = re.compile(r'(?<![\w:])(\$crate|crate|self|super)((?:::\w+)+)')
_OTHER = re.compile(r'(?<![\w:])(\w+)::')


class Source:
    """A file: its module, and what it names."""

    def __init__(self, module, text):
        self.module = module
        self.lines = [code(line) for line in text.splitlines()]
        # Doc comments and strings are gone; macros that others may use are not.
        self.macros = set(re.findall(r'macro_rules! (\w+)', '\n'.join(self.lines)))
        self.children = {m for line in self.lines
                         for m in re.findall(r'^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);', line)}

    def absolute(self, path):
        """A path from the crate's root on; None if it starts with something else."""
        path = list(path)
        if path[0] in ('crate', '$crate'):
            return tuple(path[1:])
        if path[0] not in ('self', 'super'):
            return None
        base = list(self.module)
        while path and path[0] in ('self', 'super'):
            if path.pop(0) == 'super':
                base.pop()
        return tuple(base + path)

    def names(self, macros):
        """Line numbers and paths from the root on; those that start with a crate have that first,
        after an empty string. `macros` has the module of each macro."""
        at = 0
        while at < len(self.lines):
            line, number = self.lines[at], at + 1
            if re.match(r'\s*(pub(\([^)]*\))? )?use ', line):
                while not line.rstrip().endswith(';'):
                    at += 1
                    line += ' ' + self.lines[at]
                for path in parse_use(line)[1]:
                    path = tuple(part.split(' as ')[0] for part in path if part != '*')
                    if path[0] in self.children:
                        yield number, self.module + path
                    else:
                        found = self.absolute(path)
                        yield number, ('',) + path if found is None else found
            else:
                for start, rest in _PATH.findall(line):
                    yield number, self.absolute((start,) + tuple(rest.split('::')[1:]))
                for start in _OTHER.findall(line):
                    if start in self.children:
                        yield number, self.module + (start,)
                    elif start in KERNEL:
                        yield number, ('', start)
                for macro in re.findall(r'(?<!macro_rules! )\b(\w+)!', line):
                    if macro in macros:
                        yield number, macros[macro]
            at += 1


def table(text):
    """The rows of the table: tuples of modules."""
    rows = []
    for line in text.splitlines():
        if re.match(r'//! \| \[?`', line):
            cell = line.split('|')[1]
            rows.append(tuple(tuple(name.split('::')) for name in re.findall(r'`([\w:]+)`', cell)))
    return rows


def check(directory):
    """What is wrong, as lines of text."""
    directory = Path(directory)
    root = (directory / f'{ROOT}.rs').read_text(encoding='utf-8')
    rows, wrong = table(root), []
    rank = {module: number for number, row in enumerate(rows) for module in row}
    circles = [row for row in rows if len(row) > 1]
    if len(rank) != sum(len(row) for row in rows):
        wrong.append(f'{ROOT}.rs: a module is in the table twice')
    if len(circles) > 1 or any(len(row) > 2 for row in circles):
        wrong.append(f'{ROOT}.rs: only one row of the table may have two modules, and none more')

    def unit(path):
        """The module in the table that has what a path names."""
        return next((path[:n] for n in range(len(path), 0, -1) if path[:n] in rank), None)

    sources, used = [], set()
    for file in sorted(directory.rglob('*.rs')):
        module = file.relative_to(directory).with_suffix('').parts
        if module[0] in ('tests', ROOT):
            continue
        sources.append((file, Source(module, file.read_text(encoding='utf-8'))))
        if unit(module) is None:
            wrong.append(f'{file}: {"::".join(module)} is not in the table of {ROOT}.rs')
        used.add(unit(module))
    wrong += [f'{ROOT}.rs: there is no module {"::".join(module)}' for module in rank
              if module not in used]
    macros = {macro: source.module for _, source in sources for macro in source.macros}

    for file, source in sources:
        own = unit(source.module)
        if own is None:
            continue
        for number, path in source.names(macros):
            place = f'{file}:{number}: {"::".join(own)}'
            if path[0] == '' or path[0] in KERNEL:
                if own[0] in PURE and path not in (('', 'core'),) and path[:2] != ('', 'core'):
                    wrong.append(f'{place} names {"::".join(filter(None, path))}, and must know '
                                 'nothing but core')
                continue
            if path in EVERYBODYS:
                continue
            other = unit(path)
            if other is None:
                wrong.append(f'{place} names {"::".join(path)}, which is the root\'s')
            elif other != own and rank[other] > rank[own]:
                wrong.append(f'{place} names {"::".join(other)}, which is above it')
    return wrong


def main():
    wrong = check(sys.argv[1])
    print('\n'.join(wrong), end='\n' if wrong else '')
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
