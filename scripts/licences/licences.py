#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Check that the licences of a crate's dependencies allow to pass the program on.

usage: cargo metadata ... | licences.py CRATE_DIR

A crate under GPL-2.0 alone must not link code under Apache-2.0, which the GPL in version 3 allows: such
a crate has to be GPL-2.0-or-later. Also checks that the source files of the crate say the licence that its
Cargo.toml says. Dependencies of the tests and of build scripts count as those that are linked: one list
is simpler to keep than two.
"""

import json
import re
import sys
from pathlib import Path

# Free licences that ask for no more than the GPL does, in either version.
PERMISSIVE = {
    '0BSD', 'BSD-2-Clause', 'BSD-3-Clause', 'BSL-1.0', 'CC0-1.0', 'CDLA-Permissive-2.0', 'ISC', 'MIT', 'MIT-0',
    'Unicode-3.0', 'Unlicense', 'Zlib',
    # The exception is made for linking with GPL-2.0.
    'Apache-2.0 WITH LLVM-exception',
}

# What a crate under the licence may depend on.
ALLOWED = {
    'GPL-2.0': PERMISSIVE | {'GPL-2.0', 'GPL-2.0-only', 'GPL-2.0-or-later'},
    'GPL-2.0-or-later': PERMISSIVE | {'GPL-2.0-or-later', 'Apache-2.0', 'MPL-2.0'},
}


class Wrong(Exception):
    """Not an SPDX expression."""


def allows(expression, allowed):
    """Whether one choice that an SPDX expression leaves has only licences of the set."""
    # "MIT/Apache-2.0" is how crates said "or" before there were expressions.
    tokens = re.findall(r'[()]|[^\s()]+', expression.replace('/', ' OR '))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def single():
        if peek() == '(':
            take()
            result = either()
            if peek() != ')':
                raise Wrong(expression)
            take()
            return result
        if peek() is None or peek() in (')', 'AND', 'OR', 'WITH'):
            raise Wrong(expression)
        name = take()
        if peek() == 'WITH':
            take()
            if peek() is None:
                raise Wrong(expression)
            # An exception only adds to what is allowed.
            return f'{name} WITH {take()}' in allowed or name in allowed
        return name in allowed

    def both():
        result = single()
        while peek() == 'AND':
            take()
            result = single() and result
        return result

    def either():
        result = both()
        while peek() == 'OR':
            take()
            result = both() or result
        return result

    result = either()
    if position != len(tokens):
        raise Wrong(expression)
    return result


def check_dependencies(metadata, licence):
    """What is wrong with the packages of "cargo metadata"."""
    own = set(metadata['workspace_members'])
    used = {node['id'] for node in metadata['resolve']['nodes']}
    wrong = []
    for package in metadata['packages']:
        if package['id'] not in used:
            continue
        name = f'{package["name"]} {package["version"]}'
        said = package.get('license')
        if not said:
            wrong.append(f'{name} names no licence')
            continue
        if package['id'] in own:
            if said != licence:
                wrong.append(f'{name} says {said}, it is to be {licence}')
            continue
        try:
            if not allows(said, ALLOWED[licence]):
                wrong.append(f'{name} is under {said}, which a program under {licence} cannot link')
        except Wrong:
            wrong.append(f'{name} says "{said}", which is no SPDX expression')
    return wrong


def check_sources(directory, licence):
    """The files of a crate whose first two lines do not say its licence."""
    wrong = []
    for path in sorted(directory.rglob('*')):
        if path.suffix not in ('.rs', '.toml') or 'target' in path.relative_to(directory).parts:
            continue
        head = path.read_text().splitlines()[:2]
        if not any(line.endswith(f'SPDX-License-Identifier: {licence}') for line in head):
            wrong.append(f'{path} does not say SPDX-License-Identifier: {licence}')
    return wrong


def main():
    directory = Path(sys.argv[1])
    metadata = json.load(sys.stdin)
    own = metadata['workspace_members']
    licence = next(p['license'] for p in metadata['packages'] if p['id'] in own)
    if licence not in ALLOWED:
        wrong = [f'{directory} is under {licence}, which scripts/licences does not know']
    else:
        wrong = check_dependencies(metadata, licence) + check_sources(directory, licence)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
