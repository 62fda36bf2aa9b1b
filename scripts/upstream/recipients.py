#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Writes the recipients into the head of each mail of a series, as MAINTAINERS has them.

usage: recipients.py TREE MAINTAINERS SENDER DIRECTORY

MAINTAINERS is that of the tree with the series, which has the new files, too. SENDER is an address that
is left out.

Maintainers of the files that a patch changes are in its To, reviewers and lists in its Cc. The cover
letter goes to all lists, and to the maintainers of CacheFiles, EROFS, netfs, VFS and Rust.
"""

import re
import subprocess
import sys
from pathlib import Path

# The maintainers who get the cover letter.
OWNERS = re.compile(r'(supporter|maintainer):(CACHEFILES|EROFS|FILESYSTEMS (\[NETFS|\(VFS)|RUST)')

# For new files: the existing files whose maintainers get the patch as well.
CONCERNS = [
    (r'rust/(kernel|helpers)/(fscache|netfs)', ['fs/cachefiles/main.c', 'fs/netfs/main.c']),
    (r'include/(uapi/linux|trace/events)/cachefiles', ['fs/cachefiles/main.c', 'fs/erofs/super.c']),
    (r'fs/ondemandfs/', ['fs/netfs/main.c', 'fs/erofs/super.c', 'fs/super.c']),
    (r'tools/testing/selftests/filesystems/cachefiles/', ['fs/cachefiles/main.c', 'fs/erofs/super.c']),
    (r'MAINTAINERS$', ['fs/cachefiles/main.c', 'fs/super.c']),
]


def get_maintainer(tree, maintainers, *args):
    """Addresses with the role that get_maintainer.pl gives them."""
    done = subprocess.run(
        ['perl', 'scripts/get_maintainer.pl', '--no-git-fallback', '--no-git', '--no-keywords',
         '--mpath', maintainers, *args],
        cwd=tree, capture_output=True, text=True, check=True)
    found = []
    for line in done.stdout.splitlines():
        match = re.fullmatch(r'(.*?>|\S+) \((.*)\)', line)
        if match:
            found.append(match.groups())
    return found


def recipients(tree, maintainers, patch):
    """The maintainers of the files that a patch changes, and of those in CONCERNS."""
    changed = re.findall(r'^diff --git a/(\S+) ', patch.read_text(encoding='utf-8'), re.M)
    files = sorted({file for pattern, files in CONCERNS
                    if any(re.match(pattern, path) for path in changed) for file in files})
    found = get_maintainer(tree, maintainers, str(patch))
    if files:
        found += get_maintainer(tree, maintainers, '-f', *files)
    return found


def write(patch, to, cc):
    text = patch.read_text(encoding='utf-8')
    head, body = text.split('\n\n', 1)
    for name, addresses in (('To', to), ('Cc', cc)):
        if addresses:
            head += f'\n{name}: ' + ',\n\t'.join(addresses)
    patch.write_text(head + '\n\n' + body, encoding='utf-8')


def main():
    tree, maintainers, sender, directory = sys.argv[1:]
    all_to, all_cc = {}, {}
    cover = None
    for patch in sorted(Path(directory).glob('*.patch')):
        if re.match(r'(v\d+-)?0000-', patch.name):
            cover = patch
            continue
        to, cc = {}, {}
        for address, role in recipients(tree, maintainers, patch):
            if sender in address:
                continue
            is_list = 'list' in role
            (cc if is_list or role.startswith('reviewer') else to)[address] = role
            if is_list:
                all_cc[address] = role
            elif OWNERS.match(role):
                all_to[address] = role
        write(patch, to, cc)
    if cover:
        write(cover, all_to, all_cc)


if __name__ == '__main__':
    main()
