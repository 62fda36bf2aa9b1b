# SPDX-License-Identifier: GPL-2.0
"""Our files as they are in a kernel tree.

Everything here works on text and on a tree's directory; scripts/upstream/make_series.py says which
file goes where, and when. `rust` turns a file's crate paths and visibility into those of the tree,
`merge_*` put a file into the one of the same name that the tree has.
"""

import re
from pathlib import Path

from rust_source import Item, code, depth, format_use, imported_name, items, parse_use

# What rust/kernel/compat.rs has under another name.
_COMPAT = {
    'this_module': ('module', 'this_module'),
    'ModuleMetadata': ('ModuleMetadata',),
    'smp_mb': ('sync', 'barrier', 'smp_mb'),
    'Full': ('sync', 'barrier', 'Full'),
}

# The prelude has the error numbers.
_PRELUDE = re.compile(r'^E[A-Z0-9]+$')


# ---------------------------------------------------------------- Rust


def _upstream_path(path, kernel_crate):
    """The path of an import of ours in the tree."""
    kernel = 'crate' if kernel_crate else 'kernel'
    if path[:2] == ('crate', 'kernel_next'):
        path = (kernel,) + path[2:]
    elif path[0] == 'kernel':
        path = (kernel,) + path[1:]
    if path[:2] == (kernel, 'compat'):
        name = path[2]
        path = (kernel,) + _COMPAT.get(name, ('error', 'code', name))
    return path


def _merge_uses(paths, kernel_crate):
    kernel = 'crate' if kernel_crate else 'kernel'
    paths = set(paths)
    if (kernel, 'prelude', '*') in paths:
        paths = {p for p in paths
                 if not (p[:-1] == (kernel, 'error', 'code') and _PRELUDE.match(p[-1]))}
    return paths


def _rewrite_uses(lines, kernel_crate):
    """Lines with each run of imports in the tree's form."""
    result, i = [], 0
    while i < len(lines):
        match = re.match(r'( *)((?:pub(?:\([^)]*\))? )?)use ', lines[i])
        if not match:
            result.append(lines[i])
            i += 1
            continue
        indent, visibility = match.groups()
        paths, start = set(), i
        while i < len(lines) and lines[i].startswith(f'{indent}{visibility}use '):
            text = lines[i]
            while not re.sub(r'//.*', '', text).rstrip().endswith(';'):
                i += 1
                text += lines[i]
            i += 1
            paths |= {_upstream_path(p, kernel_crate) for p in parse_use(text)[1]}
        if start and lines[start - 1].strip().startswith('#['):
            raise ValueError('an import with an attribute is not understood')
        text = format_use(_merge_uses(paths, kernel_crate), indent, visibility)
        result += text.splitlines(keepends=True)
    return result


# Names in text rather than in imports.
_WORDS = [
    (r'\[`kernel_next`\]', 'the `kernel` crate'),
    (r'the abstractions in the `kernel` crate', 'the `kernel` crate'),
    (r'`rust/cachefiles/', '`fs/cachefiles/'),
]


def rust(text, kernel_crate):
    """A Rust file of ours with the tree's paths; in the `kernel` crate if `kernel_crate`."""
    kernel = 'crate' if kernel_crate else 'kernel'
    lines = _rewrite_uses(text.splitlines(keepends=True), kernel_crate)
    text = _without_owner(''.join(_without_host(_without_own_crates(lines))))
    for pattern, replacement in _WORDS:
        text = re.sub(pattern, replacement, text)
    text = _with_option(text, kernel_crate)

    result = []
    for line in text.splitlines(keepends=True):
        # Doc comments speak of the crate as its users do.
        if not line.lstrip().startswith('//'):
            line = re.sub(r'\$crate::kernel_next::', '$crate::', line)
            line = re.sub(r'(?<![\w$:])crate::kernel_next::(?:compat::)?', f'{kernel}::', line)
            if kernel_crate:
                line = re.sub(r'(?<![\w$:])kernel::(?=\w)', 'crate::', line)
        if kernel_crate:
            line = line.replace('pub(crate) ', 'pub ')
            line = line.replace('pub(in crate::kernel_next) ', 'pub(crate) ')
        result.append(line)
    return ''.join(result)


def _without_owner(text):
    """Text without the module that a table of functions belongs to: the tree's #[vtable] adds it."""
    text = re.sub(r'( +///.*\n)* +type OwnerModule(: ModuleMetadata| = crate::LocalModule);\n(\n(?= ))?', '', text)
    if len(re.findall(r'\bModuleMetadata\b', text)) == 1:
        text = re.sub(r'(?<=,)\n +ModuleMetadata,(?= //\n)|\n +ModuleMetadata,(?=\n)', '', text)
        text = re.sub(r'^use crate::ModuleMetadata;\n', '', text, flags=re.M)
    return text


def _without_own_crates(lines):
    """Lines without what takes the place of the kernel's crates outside of its tree."""
    return ''.join(
        part.text if isinstance(part, Item) else part for part in items(lines)
        if not (isinstance(part, Item) and part.module in ('bindings', 'kernel_next'))
    ).splitlines(keepends=True)


def _without_host(lines):
    """Lines without what is there to compile tests on the host, too."""
    result, i = [], 0
    while i < len(lines):
        text = lines[i].strip()
        if text == '#[cfg(test)]':
            # What it is for, and what is said of that.
            while result and result[-1].strip().startswith(('///', '#[')):
                result.pop()
            level = 0
            while True:
                i += 1
                level += depth(lines[i])
                end = code(lines[i]).rstrip()
                if level == 0 and end.endswith((';', '}')):
                    break
        elif text != '#[cfg(not(test))]' and not re.match(r'#\[path = "[\w/]+\.rs"\]', text):
            result.append(lines[i])
        i += 1
    return re.sub(r'cfg_attr\(\s*CONFIG_KUNIT = "y",\s*(kernel::prelude::kunit_tests\(\w+\))\s*\)', r'\1',
                  ''.join(result)).splitlines(keepends=True)


def _with_option(text, kernel_crate):
    """Text whose tests are there if the tree's own option for them is set."""
    option = 'CONFIG_RUST_FS_KUNIT_TEST' if kernel_crate else 'CONFIG_CACHEFILES_RUST_KUNIT_TEST'
    text = text.replace('#[cfg(CONFIG_KUNIT = "y")]', f'#[cfg({option})]')
    if kernel_crate:
        text = re.sub(r'^(?=#\[(\w+::)*kunit_tests\()', f'#[cfg({option})]\n', text, flags=re.M)
    return text


def is_tests(item):
    return isinstance(item, Item) and item.key == 'mod tests'


def split_tests(text):
    """A file without its tests, and the tests."""
    parts = items(text.splitlines(keepends=True))
    rest = ''.join(p.text if isinstance(p, Item) else p for p in parts if not is_tests(p))
    tests = ''.join(p.text for p in parts if is_tests(p))
    return rest.rstrip('\n') + '\n', tests


def only_modules(text, have):
    """A file without the modules, and what is imported of them, for which `have(name)` is false."""
    missing = set()
    result = []
    for part in items(text.splitlines(keepends=True)):
        if isinstance(part, Item):
            if part.module and not have(part.module):
                missing.add(part.module)
                continue
            if part.is_use:
                visibility, paths = parse_use(''.join(part.lines[part.head:]))
                kept = [p for p in paths
                        if (p[1] if p[0] == 'self' and len(p) > 1 else p[0]) not in missing]
                if not kept:
                    continue
                if len(kept) < len(paths):
                    result += part.lines[:part.head] + [format_use(kept, '', visibility)]
                    continue
            result.append(part.text)
        else:
            result.append(part)
    return re.sub(r'\n{3,}', '\n\n', ''.join(result)).rstrip('\n') + '\n'


def _uses_of(parts):
    paths = []
    for part in parts:
        if isinstance(part, Item) and part.is_use and part.head == 0:
            visibility, found = parse_use(part.text)
            if not visibility:
                paths += found
    return paths


def _field_items(body):
    return items(body, separator=',')


def _merge_block(tree, ours):
    """The tree's item with those of our item's inner items that it lacks; None if it lacks none."""
    is_value = tree.key.startswith(('const', 'static'))
    if not is_value and not tree.key.startswith(('impl', 'unsafe impl', 'trait')):
        return None
    a, b = tree.body(), ours.body()
    if a is None or b is None:
        return None
    parse = _field_items if is_value else items

    def key(item):
        if not is_value:
            return item.key
        return re.split(r'[:,]', item.lines[item.head].strip())[0]

    parts = parse(a[1])
    have = {key(p): i for i, p in enumerate(parts) if isinstance(p, Item)}
    added, changed = [], False
    for item in parse(b[1]):
        if not isinstance(item, Item):
            continue
        if key(item) not in have:
            added.append(item)
        elif not is_value:
            # A table of functions, maybe.
            at = have[key(item)]
            merged = _merge_block(parts[at], item)
            if merged is not None:
                parts[at] = merged
                changed = True
    if not added and not changed:
        return None
    inner = ''.join(p.text if isinstance(p, Item) else p for p in parts).splitlines(keepends=True)
    # Fields in order: the last ones are the owner, and the rest of them.
    at = len(inner)
    if is_value:
        at = next((i for i, line in enumerate(inner) if line.strip().startswith(('owner:', '..'))), at)
    new = ('' if is_value else '\n').join([''] + [item.text for item in added])
    inner[at:at] = [new]
    return ''.join(a[0] + inner + a[2])


def merge_rust(tree, ours):
    """The tree's file with what ours has and it lacks (both with the tree's paths)."""
    parts = items(tree.splitlines(keepends=True))
    have = {p.key: i for i, p in enumerate(parts) if isinstance(p, Item) and not p.is_use}
    added, tests = [], []
    our_parts = items(ours.splitlines(keepends=True))
    for part in our_parts:
        if not isinstance(part, Item):
            continue
        if part.is_use:
            if parse_use(''.join(part.lines[part.head:]))[0] and part.text not in tree:
                added.append(part.text)
            continue
        if part.key not in have:
            (tests if is_tests(part) else added).append(part.text)
            continue
        merged = _merge_block(parts[have[part.key]], part)
        if merged is not None:
            parts[have[part.key]] = merged

    def text_of(part):
        return part.text if isinstance(part, Item) else part

    # Before the tests of the tree, if it has some; ours are the last.
    at = next((i for i, p in enumerate(parts) if is_tests(p)), len(parts))
    before = ''.join(map(text_of, parts[:at])).rstrip('\n') + '\n'
    after = ''.join(map(text_of, parts[at:]))
    body = before + ''.join('\n' + item for item in added)
    if after:
        body += '\n' + after.rstrip('\n') + '\n'
    body += ''.join('\n' + item for item in tests)
    return _with_imports(body, tree, our_parts)


def _with_imports(body, tree, our_parts):
    """A merged file with those of our imports that it needs and does not have."""
    parts = items(body.splitlines(keepends=True))
    own = _uses_of(parts)
    names = {imported_name(p) for p in own}
    # What the file itself defines.
    names |= {p.key.split(' ')[-1] for p in parts if isinstance(p, Item) and not p.is_use}
    rest = '\n'.join(code(line) for p in parts if isinstance(p, Item) and not p.is_use
                     for line in p.lines)
    new = []
    for path in _uses_of(our_parts):
        name = imported_name(path)
        if name == '*':
            wanted = path not in own
        else:
            wanted = name not in names and re.search(rf'(?<![\w]){name}(?!\w)', rest) is not None
        if wanted:
            new.append(path)
    if not new:
        return body
    # In the place of the tree's, or before everything else.
    uses = format_use(_merge_uses(set(own) | set(new), True))
    text, is_in = '', False
    for part in parts:
        if isinstance(part, Item) and not is_in:
            text += uses if own else uses + '\n' + part.text
            is_in = True
            if not own:
                continue
        if isinstance(part, Item) and part.is_use and part.head == 0 and not parse_use(part.text)[0]:
            continue
        text += part.text if isinstance(part, Item) else part
    return text


def declare_module(parent, name, attribute='', visibility='pub'):
    """A parent file with one more module, in alphabetical order."""
    lines = parent.splitlines(keepends=True)
    if any(re.match(rf'(pub(\(crate\))? )?mod {name};', line) for line in lines):
        return parent
    new = (f'{attribute}\n' if attribute else '') + f'{visibility} mod {name};\n'.lstrip()
    if re.search(r'^(pub )?mod \w+;\npub use ', parent, re.M):
        # One by one with what is re-exported of each: those that come are a group of their own.
        grouped = re.search(r'\n\n(?:(?:#\[.*\n)?pub mod \w+;\n)+$', parent)
        if not grouped:
            return parent + '\n' + new
        lines = parent[grouped.start() + 2:].splitlines(keepends=True)
        return parent[:grouped.start() + 2] + ''.join(_sorted_insert(lines, [new], r'pub mod '))
    last = None
    for i, line in enumerate(lines):
        match = re.match(r'(?:pub(?:\([^)]*\))? )?mod (\w+);', line)
        if not match:
            continue
        if match.group(1) > name:
            # Attributes belong to what follows.
            while lines[i - 1].startswith('#['):
                i -= 1
            lines.insert(i, new)
            return ''.join(lines)
        last = i
    if last is None:
        # The first one: behind the imports.
        parts = items(lines)
        at = next(i for i in range(len(parts) - 1, -1, -1)
                  if isinstance(parts[i], Item) and parts[i].is_use)
        text = [p.text if isinstance(p, Item) else p for p in parts]
        text.insert(at + 1, '\n' + new)
        return ''.join(text)
    # Behind what is re-exported of the last one.
    while last + 1 < len(lines) and re.match(r'pub use |    |}', lines[last + 1]):
        last += 1
    lines.insert(last + 1, new)
    return ''.join(lines)


# ---------------------------------------------------------------- C


def _sorted_insert(lines, new, pattern):
    """Puts lines in alphabetical order into the longest run of lines that match: each behind the last
    smaller one, because such lists are not always in order."""
    for line in new:
        if line in lines:
            continue
        runs = [[]]
        for i, other in enumerate(lines):
            if re.match(pattern, other):
                runs[-1].append(i)
            elif runs[-1]:
                runs.append([])
        run = max(runs, key=len)
        if run:
            lines.insert(max((i + 1 for i in run if lines[i] < line), default=run[0]), line)
        else:
            lines.append(line)
    return lines


def merge_bindings(tree, ours, exists):
    """bindings_helper.h with our headers and constants; `exists(header)` says if there is one."""
    lines = tree.splitlines(keepends=True)
    headers = [l for l in ours.splitlines(keepends=True)
               if (m := re.match(r'#include <(.*)>', l)) and exists(m.group(1))]
    _sorted_insert(lines, headers, r'#include <(?!\.\.)')
    new = [l for l in ours.splitlines(keepends=True) if l.startswith('const ') and l not in lines]
    # Behind the last of the tree's that no condition is for.
    level, at = 0, 0
    for i, line in enumerate(lines):
        level += line.startswith('#if') - line.startswith('#endif')
        if level == 0 and line.startswith('const '):
            at = i + 1
    lines[at:at] = ['\n'] + new
    return ''.join(lines)


def _c_blocks(text):
    """A helper file's headers, and the rest in blocks: an `#if` to its `#endif` is one."""
    headers, blocks, current, level = [], [], [], 0
    for line in text.splitlines(keepends=True):
        if line.startswith('#include') and level == 0:
            headers.append(line)
            continue
        if line.startswith('// SPDX'):
            continue
        if line.startswith('#if'):
            level += 1
        if line.startswith('#endif'):
            level -= 1
        if not line.strip() and level == 0:
            if current:
                blocks.append(''.join(current))
            current = []
            continue
        current.append(line)
    if current:
        blocks.append(''.join(current))
    return headers, blocks


def merge_helper(tree, ours):
    """A file of rust/helpers/ with the functions of ours that it lacks."""
    headers, blocks = _c_blocks(ours)
    lines = _sorted_insert(tree.splitlines(keepends=True), headers, r'#include <')
    text = ''.join(lines).rstrip('\n') + '\n'
    for block in blocks:
        names = re.findall(r'rust_helper_\w+', block)
        if not names or any(name + '(' not in text for name in names):
            text += '\n' + block
    return text


def declare_helper(helpers, name, condition=None):
    """helpers.c with one more file."""
    lines = helpers.splitlines(keepends=True)
    line = f'#include "{name}"\n'
    if line in lines:
        return helpers
    at = max(i for i, l in enumerate(lines) if l.startswith('#include "') and l < line) + 1
    if lines[at].startswith('#endif'):
        at += 1
    lines[at:at] = [f'#if {condition}\n', line, '#endif\n'] if condition else [line]
    return ''.join(lines)


def without_versions(text):
    """C without what is only for kernels before the tree: `#if` on LINUX_VERSION_*, to its else."""
    result, skipping, level = [], None, 0
    for line in text.splitlines(keepends=True):
        if skipping is None and re.match(r'#if .*LINUX_VERSION_', line):
            skipping, level = True, 0
            continue
        if skipping is not None:
            if line.startswith('#if'):
                level += 1
            elif line.startswith('#else') and level == 0:
                skipping = False
                continue
            elif line.startswith('#endif'):
                if level == 0:
                    skipping = None
                    continue
                level -= 1
            if skipping:
                continue
        result.append(line)
    return ''.join(result).replace('#include <linux/version.h>\n', '')


# ---------------------------------------------------------------- lists


def sorted_line(text, line, pattern):
    """A file with one more line in alphabetical order among those that match."""
    return ''.join(_sorted_insert(text.splitlines(keepends=True), [line], pattern))


# ---------------------------------------------------------------- particular files


def after_line(text, line, new):
    """A file with something new behind a line that it must have."""
    if isinstance(line, str):
        line = re.compile(re.escape(line))
    match = line.search(text)
    if not match:
        raise ValueError(f'there is no line {line.pattern!r}')
    return text[:match.end()] + new + text[match.end():]


def before_line(text, line, new):
    """A file with something new before a line that it must have."""
    at = text.index(f'\n{line}\n') + 1
    return text[:at] + new + text[at:]


def before_last_line(text, line, new):
    """A file with something new before the last line that is this one."""
    at = text.rindex(f'\n{line}') + 1
    return text[:at] + new + text[at:]


def cachefiles_kconfig(text, choice):
    """fs/cachefiles/Kconfig with the choice of an implementation behind CACHEFILES itself."""
    head, rest = text.split('config CACHEFILES_DEBUG\n')
    rest = rest.replace('\tdepends on CACHEFILES\n', '\tdepends on CACHEFILES_C\n')
    rest = rest.replace('\tdepends on CACHEFILES && ', '\tdepends on CACHEFILES_C && ')
    return head + choice + '\nconfig CACHEFILES_DEBUG\n' + rest


def cachefiles_makefile(text, objects):
    """fs/cachefiles/Makefile with the objects of the one or the other."""
    match = re.search(r'cachefiles-y := \\\n(?:\t\w+\.o \\\n)*\t\w+\.o\n', text)
    ours = ' \\\n'.join('\t' + name for name in objects)
    return (text[:match.start()] + f'ifdef CONFIG_CACHEFILES_RUST\ncachefiles-y := \\\n{ours}\nelse\n'
            + match.group(0) + 'endif\n' + text[match.end():])


def documentation(text, places):
    """Text that names our files by where they are in the tree."""
    for ours, theirs in places:
        if ours in ('rust/cachefiles/', 'rust/ondemandfs/'):
            text = text.replace(ours, theirs)
    return text


def maintainers(text, entry, identity, files):
    """MAINTAINERS with our entry, which is for these files, before that of CacheFiles in C."""
    lines = [f'M:\t{identity}' if line.startswith('M:') else line
             for line in entry.splitlines() if not line.startswith('F:')]
    lines += [f'F:\t{file}' for file in sorted(files)]
    return text.replace('\nCACHEFILES: ', '\n' + '\n'.join(lines) + '\n\nCACHEFILES: ', 1)


def read(path):
    return Path(path).read_text(encoding='utf-8')
