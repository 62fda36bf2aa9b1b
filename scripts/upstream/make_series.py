#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the patch series: our files as commits on a kernel tree, then as mails.

scripts/series calls it; its --help describes the arguments. Nothing is checked out: the commits are
made in the repository's object store, from the lists in `patches/`.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import graft

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent

# The directories of the tree for ours; the first that fits counts. Other files do not go into the tree.
PLACES = [
    ('rust/cachefiles/', 'fs/cachefiles/'),
    ('rust/ondemandfs/', 'fs/ondemandfs/'),
    ('rust/kernel/', 'rust/kernel/'),
    ('rust/helpers/', 'rust/helpers/'),
    ('rust/bindings/', 'rust/bindings/'),
    ('include/', 'include/'),
    ('Documentation/', 'Documentation/'),
    ('tools/testing/selftests/', 'tools/testing/selftests/'),
    ('scripts/upstream/tree/', ''),
]

# Abstractions that call code which may be a module, or not be configured; the `kernel` crate is built in.
CONDITIONS = {
    'rust/kernel/crypto.rs': 'CONFIG_CRYPTO_LIB_SHA256 = "y"',
    'rust/kernel/fscache.rs': 'all(CONFIG_NETFS_SUPPORT = "y", CONFIG_FSCACHE)',
    'rust/kernel/netfs.rs': 'all(CONFIG_NETFS_SUPPORT = "y", CONFIG_FSCACHE)',
    'rust/kernel/kunit/scratch.rs': 'CONFIG_RUST_FS_KUNIT_TEST',
    'rust/kernel/kunit/support.rs': 'CONFIG_RUST_FS_KUNIT_TEST',
}
HELPER_CONDITIONS = {
    'fscache.c': 'IS_BUILTIN(CONFIG_NETFS_SUPPORT) && IS_ENABLED(CONFIG_FSCACHE)',
}


def die(text):
    sys.exit(f'error: {text}')


class Git:
    """A repository, bare or not."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.env = dict(os.environ)

    def __call__(self, *args, stdin=None, check=True):
        done = subprocess.run(
            ['git', '-c', 'safe.directory=*', '-c', 'core.compression=1', '-C', self.directory, *args],
            input=stdin, capture_output=True, text=True, check=False, env=self.env)
        if check and done.returncode:
            die(f'git {args[0]} failed: {done.stderr.strip()}')
        return done.stdout


class Patch:
    """A file in patches/: the commit message, then after a line `---` the files that the patch adds."""

    def __init__(self, path):
        self.name = path.name
        text = graft.read(path)
        message, found, actions = text.partition('\n---\n')
        if not found:
            die(f'{path} has no line "---" between its message and its files.')
        self.message = message.strip() + '\n'
        self.actions = [line.split('#')[0].split() for line in actions.splitlines()]
        self.actions = [words for words in self.actions if words]


class Series:
    """Our files that patches have added so far, and the resulting files of the tree."""

    def __init__(self, git, base, identity):
        self.git = git
        self.base = base
        self.identity = identity
        # Our files, and whether with their tests.
        self.taken = {}
        self.edits = []
        self._base_text = {}
        self.base_files = set(git('ls-tree', '-r', '--name-only', base).splitlines())
        done = subprocess.run(
            ['git', '-c', 'safe.directory=*', '-C', str(TOP), 'ls-files', '--cached', '--others',
             '--exclude-standard', '--deduplicate'], capture_output=True, text=True, check=True)
        stays = [line for line in graft.read(HERE / 'stays-here').splitlines()
                 if line and not line.startswith('#')]
        self.ours = [f for f in done.stdout.splitlines() if (TOP / f).is_file() and not any(
            f == s or (s.endswith('/') and f.startswith(s)) for s in stays)]

    # What a patch says.

    def apply(self, patch):
        for words in patch.actions:
            if words[0] == 'edit':
                self.edits += words[1:]
            else:
                self.take(patch, words[0], words[1:])

    def take(self, patch, path, options):
        files = [f for f in self.ours if f == path or (path.endswith('/') and f.startswith(path))]
        if not files:
            die(f'{patch.name}: there is no {path}.')
        for file in files:
            if options == ['+tests']:
                if file not in self.taken:
                    die(f'{patch.name}: {file} is not there yet.')
                self.taken[file] = True
                continue
            if file in self.taken:
                continue
            self.taken[file] = options != ['-tests']

    # The tree.

    def text_of(self, path):
        """A file of the tree as it was."""
        if path not in self._base_text:
            self._base_text[path] = self.git('show', f'{self.base}:{path}')
        return self._base_text[path]

    @staticmethod
    def place(path):
        for ours, theirs in PLACES:
            if path.startswith(ours):
                return theirs + path[len(ours):]
        die(f'{path} has no place in the kernel; scripts/upstream/make_series.py lists them.')

    def has(self, parent, name):
        """Whether the module `name` that the file `parent` declares is there."""
        return f'{parent.removesuffix(".rs")}/{name}.rs' in self.taken

    def files(self):
        """The files of the tree that differ from what it has."""
        result = {}
        for path, with_tests in self.taken.items():
            target = self.place(path)
            result[target] = self.content(path, target, with_tests)
        self.declare_modules(result)
        self.declare_helpers(result)
        for name in self.edits:
            getattr(self, 'edit_' + name.replace('-', '_'))(result)
        return result

    def content(self, path, target, with_tests):
        text = graft.read(TOP / path)
        base = self.text_of(target) if target in self.base_files else None
        if path.startswith('rust/cachefiles/') and path.endswith('.rs'):
            return graft.rust(text, False)
        if path.endswith('.rs'):
            text = graft.rust(text, True)
            if not with_tests:
                text = graft.split_tests(text)[0]
            text = graft.only_modules(text, lambda name: self.has(path, name))
            return graft.merge_rust(base, text) if base else text
        if path.endswith('bindings_helper.h'):
            return graft.merge_bindings(
                base, text, lambda h: f'include/{h}' in self.base_files | set(self.taken))
        if path.startswith('rust/helpers/'):
            return graft.merge_helper(base, text) if base else text
        if path.endswith(('.c', '.h')):
            text = graft.without_versions(text)
        if path.endswith('.rst'):
            text = graft.documentation(text, PLACES)
        if base is not None and not path.startswith('scripts/upstream/tree/'):
            die(f'the tree has a {target} already, and it is not known how to put ours into it.')
        return text

    def declare_modules(self, result):
        """Adds what is new in the `kernel` crate to the tree's file that is above it."""
        for path in self.taken:
            if not path.startswith('rust/kernel/') or path in self.base_files:
                continue
            parent = Path(path).parent
            target = 'rust/kernel/lib.rs' if parent.name == 'kernel' else f'{parent}.rs'
            if target not in self.base_files:
                continue
            condition = CONDITIONS.get(path)
            result[target] = graft.declare_module(
                result.get(target) or self.text_of(target), Path(path).stem,
                f'#[cfg({condition})]' if condition else '', self.visibility(parent, Path(path).stem))

    @staticmethod
    def visibility(parent, name):
        """The visibility of a module of ours in the tree."""
        text = graft.read(TOP / (parent / 'lib.rs' if parent.name == 'kernel' else f'{parent}.rs'))
        declaration = re.search(rf'^(.*)mod {name};', graft.rust(text, True), re.M)
        return declaration.group(1).strip()

    def declare_helpers(self, result):
        for path in sorted(self.taken):
            name = Path(path).name
            if path.startswith('rust/helpers/') and f'rust/helpers/{name}' not in self.base_files:
                target = 'rust/helpers/helpers.c'
                result[target] = graft.declare_helper(
                    result.get(target) or self.text_of(target), name, HELPER_CONDITIONS.get(name))

    # Files that the tree has and that are not of the kinds above.

    def edit(self, result, path, change):
        result[path] = change(result.get(path) or self.text_of(path))

    def edit_implementation_choice(self, result):
        """fs/cachefiles: the choice of an implementation."""
        self.edit(result, 'fs/cachefiles/Kconfig', lambda text: graft.cachefiles_kconfig(
            text, graft.read(HERE / 'Kconfig.choice')))
        objects = sorted(Path(p).stem + '.o' for p in self.taken
                         if re.match(r'rust/cachefiles/(cachefiles_main\.rs|\w+\.c)$', p))
        self.edit(result, 'fs/cachefiles/Makefile',
                  lambda text: graft.cachefiles_makefile(text, objects))

    def edit_kunit_option(self, result):
        """rust/kernel/Kconfig.test: the option for the suites in the kernel crate."""
        self.edit(result, 'rust/kernel/Kconfig.test', lambda text: graft.before_last_line(
            text, 'endif', graft.read(HERE / 'Kconfig.kunit')))

    def edit_sha256_option(self, result):
        """lib/crypto/Kconfig: an option that builds the library in, for users of the abstraction."""
        self.edit(result, 'lib/crypto/Kconfig', lambda text: graft.before_line(
            text, 'config CRYPTO_LIB_SHA512', graft.read(HERE / 'Kconfig.sha256')))

    def edit_netfs_option(self, result):
        """fs/netfs/Kconfig: an option that builds netfs in, for users of the abstraction."""
        self.edit(result, 'fs/netfs/Kconfig', lambda text: graft.before_line(
            text, 'config NETFS_STATS', graft.read(HERE / 'Kconfig.netfs')))

    def edit_asm_goto(self, result):
        """rust/kernel/lib.rs: what tracepoints need, which the crate declares for its users."""
        self.edit(result, 'rust/kernel/lib.rs', lambda text: graft.after_line(
            text, '// Stable since Rust 1.87.0.\n', '#![feature(asm_goto)]\n'))

    def edit_ondemandfs(self, result):
        """fs/Kconfig and fs/Makefile: one more file system."""
        self.edit(result, 'fs/Kconfig', lambda text: graft.after_line(
            text, 'source "fs/cachefiles/Kconfig"\n', 'source "fs/ondemandfs/Kconfig"\n'))
        self.edit(result, 'fs/Makefile', lambda text: graft.after_line(
            text, re.compile(r'obj-\$\(CONFIG_CACHEFILES\)\s.*\n'),
            'obj-$(CONFIG_ONDEMANDFS)\t+= ondemandfs/\n'))

    def edit_selftests(self, result):
        self.edit(result, 'tools/testing/selftests/Makefile', lambda text: graft.sorted_line(
            text, 'TARGETS += filesystems/cachefiles\n', r'TARGETS \+= '))

    def edit_documentation(self, result):
        names = sorted(Path(p).stem for p in self.taken
                       if p.startswith('Documentation/filesystems/caching/') and p.endswith('.rst'))
        self.edit(result, 'Documentation/filesystems/caching/index.rst', lambda text: graft.after_line(
            text, '   cachefiles\n', ''.join(f'   {name}\n' for name in names)))

    def edit_maintainers(self, result):
        """Every file that is new, by its directory if that is."""
        files = set()
        for path in result.keys() - self.base_files:
            parent = str(Path(path).parent)
            while path.startswith(('fs/', 'rust/kernel/', 'tools/')) and not any(
                    f.startswith(parent + '/') for f in self.base_files):
                path, parent = parent + '/', str(Path(parent).parent)
            files.add(path)
        patterns = set()
        for file in files:
            file = re.sub(r'^(Documentation/filesystems/caching/cachefiles-rust).*', r'\1*', file)
            patterns.add(re.sub(r'^(fs/cachefiles/)\w+\.rs$', r'\1*.rs', file))
        self.edit(result, 'MAINTAINERS', lambda text: graft.maintainers(
            text, graft.read(TOP / 'MAINTAINERS'), self.identity, patterns))


def rustfmt(text, path):
    done = subprocess.run(['rustfmt', '--config-path', str(TOP), '--emit', 'stdout', '--quiet'],
                          input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        die(f'rustfmt does not take {path}: {done.stderr.strip()}')
    return done.stdout


def import_tree(source, git_dir):
    """The repository of a tree that has none: one commit, the same each time."""
    date = f'@{int((Path(source) / "Makefile").stat().st_mtime)} +0000'
    repository = Git(source)
    repository.env.update(GIT_DIR=str(git_dir), GIT_WORK_TREE=str(source),
                          GIT_AUTHOR_NAME='base', GIT_AUTHOR_EMAIL='base@localhost',
                          GIT_COMMITTER_NAME='base', GIT_COMMITTER_EMAIL='base@localhost',
                          GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
    subprocess.run(['git', 'init', '-q', '--bare', str(git_dir)], check=True)
    repository('config', 'core.bare', 'false')
    repository('config', 'gc.auto', '0')
    repository('add', '--all', '--force', '.')
    version = re.findall(r'^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$',
                         graft.read(Path(source) / 'Makefile'), re.M)
    tree = repository('write-tree').strip()
    commit = repository('commit-tree', '-m', f'Linux {".".join(version)}', tree).strip()
    repository('update-ref', 'refs/heads/base', commit)
    repository('config', 'core.bare', 'true')


class Tree:
    """Trees of the repository that grow from one patch to the next."""

    def __init__(self, git, base):
        self.git = git
        self.blobs = {}
        self.entries = {}
        git('read-tree', base)

    def write(self, files):
        """The tree with these files, of which none that it had is missing."""
        info = ''
        for path, text in files.items():
            if text not in self.blobs:
                self.blobs[text] = self.git('hash-object', '-w', '--stdin', stdin=text).strip()
            entry = ('100755' if text.startswith('#!') else '100644', self.blobs[text])
            if self.entries.get(path) != entry:
                self.entries[path] = entry
                info += f'{entry[0]} {entry[1]}\t{path}\n'
        self.git('update-index', '--index-info', stdin=info)
        return self.git('write-tree').strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--import-tree', nargs=2, metavar=('SOURCE', 'GIT_DIR'))
    parser.add_argument('--git', help='the repository')
    parser.add_argument('--base', help='the commit to build on')
    parser.add_argument('--branch', help='the name to give the result')
    parser.add_argument('--author', help='"Name <address>"')
    parser.add_argument('--sign-off', action='store_true')
    args = parser.parse_args()
    if args.import_tree:
        import_tree(*args.import_tree)
        return

    match = re.fullmatch(r'(.*) <(.*)>', args.author)
    if not match:
        die(f'the author has to be "Name <address>", not "{args.author}".')
    git = Git(args.git)
    # The same input gives the same commits.
    for role in ('AUTHOR', 'COMMITTER'):
        git.env.update({f'GIT_{role}_NAME': match.group(1), f'GIT_{role}_EMAIL': match.group(2),
                        f'GIT_{role}_DATE': git('show', '-s', '--format=%cI', args.base).strip()})
    series = Series(git, args.base, args.author)
    formatted, head = {}, args.base
    index = str(Path(git('rev-parse', '--absolute-git-dir').strip()) / f'index-{os.getpid()}')
    git.env['GIT_INDEX_FILE'] = index
    try:
        tree, before = Tree(git, args.base), None
        for path in sorted((HERE / 'patches').iterdir()):
            patch = Patch(path)
            series.apply(patch)
            files = {}
            for name, text in series.files().items():
                if name.endswith('.rs'):
                    if (name, text) not in formatted:
                        formatted[name, text] = rustfmt(text, name)
                    text = formatted[name, text]
                files[name] = text
            message = patch.message
            if args.sign_off:
                message += f'\nSigned-off-by: {args.author}\n'
            after = tree.write(files)
            if after == before:
                die(f'{patch.name} changes nothing.')
            before = after
            head = git('commit-tree', '-p', head, after, stdin=message).strip()
            print(f'{patch.name}: {patch.message.splitlines()[0]}', file=sys.stderr)
    finally:
        if os.path.exists(index):
            os.unlink(index)
        git.env.pop('GIT_INDEX_FILE', None)

    # Nothing that belongs in the kernel may have been forgotten.
    left = [f for f in series.ours
            if any(f.startswith(ours) for ours, _ in PLACES) and f not in series.taken]
    if left:
        die(f'no patch takes {", ".join(left)}; add it to one, or to scripts/upstream/stays-here.')
    git('update-ref', f'refs/heads/{args.branch}', head)
    print(head)


if __name__ == '__main__':
    main()
