# SPDX-License-Identifier: GPL-2.0
"""Reads and rewrites Rust source that rustfmt has formatted.

That it is formatted is what makes this simple: an item starts in the column of its block and ends
where the brackets that it opened are closed again.
"""

import re

# Strings, characters and comments: brackets in them do not count.
_NOISE = re.compile(r'b?r#"(?:.|\n)*?"#|b?c?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'|//.*')


def code(line):
    """The line without what only looks like code."""
    return _NOISE.sub('""', line)


def depth(line):
    """By how many brackets the nesting grows."""
    text = code(line)
    return sum(text.count(c) for c in '([{') - sum(text.count(c) for c in ')]}')


class Item:
    """An item and the comments and attributes before it."""

    def __init__(self, lines, head):
        self.lines = lines
        # Where the item itself starts.
        self.head = head

    @property
    def text(self):
        return ''.join(self.lines)

    @property
    def declaration(self):
        """What stands before its body, on one line."""
        words = []
        for line in self.lines[self.head:]:
            text = code(line).strip()
            words.append(text)
            if text.endswith(('{', ';', '}')) or ' = ' in text:
                break
        text = ' '.join(words)
        return re.sub(r'\s+', ' ', re.split(r' = | ?\{|;|!? \{', text)[0]).strip()

    @property
    def key(self):
        """What makes it the same item as another: its kind and name, or all of an impl's head."""
        text = re.sub(r'^pub(\([a-z: _]+\))? ', '', self.declaration)
        if text.startswith(('impl', 'unsafe impl')):
            return text
        match = re.match(
            r'(?:(?:unsafe|const|async|extern(?: "")?) )*'
            r'(fn|struct|enum|union|trait|type|const|static|mod|macro_rules!) (?:mut )?(\w+)', text)
        if match:
            return ' '.join(match.groups())
        match = re.match(r'const (\w+)', text)
        return f'const {match.group(1)}' if match else text

    @property
    def is_use(self):
        return re.match(r'(pub(\([^)]*\))? )?use ', self.lines[self.head].lstrip()) is not None

    @property
    def module(self):
        """The name, if it declares a module that is in another file."""
        match = re.match(r'(?:pub(?:\([^)]*\))? )?mod (\w+);', self.lines[self.head].strip())
        return match and match.group(1)

    def body(self):
        """Its lines before, in and after the outermost braces; None if it has none."""
        level = 0
        for i, line in enumerate(self.lines[self.head:], self.head):
            level += depth(line)
            if level > 0 and code(line).rstrip().endswith('{'):
                return self.lines[:i + 1], self.lines[i + 1:-1], self.lines[-1:]
        return None


def items(lines, separator=None):
    """Splits lines into items; what is none, as blank lines, is left as strings between them."""
    result, pending, i = [], [], 0
    while i < len(lines):
        line = lines[i]
        text = line.strip()
        if not text or text.startswith(('//!', '#![')):
            result += pending + [line]
            pending = []
            i += 1
            continue
        if text.startswith('//') or text.startswith('#['):
            level = depth(line)
            pending.append(line)
            i += 1
            while level > 0:
                pending.append(lines[i])
                level += depth(lines[i])
                i += 1
            continue
        head, taken, level = len(pending), pending, 0
        pending = []
        while True:
            taken.append(lines[i])
            level += depth(lines[i])
            text = code(lines[i]).rstrip()
            i += 1
            ends = (separator,) if separator else ('}', ';', ')', '} //', '},')
            if level <= 0 and text.endswith(ends):
                break
            if i == len(lines) and level <= 0 and separator:
                # The last one may do without.
                break
            if i == len(lines):
                raise ValueError(f'this item does not end: {"".join(taken)[:200]}')
        result.append(Item(taken, head))
    return result + pending


# ---------------------------------------------------------------- imports


def parse_use(text):
    """The visibility and the paths (tuples) of a `use` item."""
    text = re.sub(r'//.*', '', text)
    match = re.match(r'\s*((?:pub(?:\([^)]*\))? )?)use (.*);\s*$', re.sub(r'\s+', ' ', text))
    tokens = re.findall(r'\w+(?: as \w+)?|\*|::|[{},]', match.group(2))
    paths, position = [], 0

    def tree(prefix):
        nonlocal position
        while position < len(tokens):
            token = tokens[position]
            position += 1
            if token == '{':
                while tokens[position] != '}':
                    tree(prefix)
                    if tokens[position] == ',':
                        position += 1
                position += 1
                return
            prefix = prefix + (token,)
            if position < len(tokens) and tokens[position] == '::':
                position += 1
                continue
            paths.append(prefix)
            return

    tree(())
    return match.group(1), paths


def imported_name(path):
    """What a path is called where it is imported."""
    last = path[-1] if path[-1] != 'self' else path[-2]
    return last.split(' as ')[-1]


def _order(name):
    """Where rustfmt puts a name: `self`, then snake_case, CamelCase and SCREAMING_CASE."""
    if name.isupper() and len(name) > 1:
        kind = 2
    else:
        kind = int(name[0].isupper())
    return name != 'self', kind, name


def format_use(paths, indent='', visibility=''):
    """`use` items for the paths, one for each crate, in the kernel's vertical style."""
    tree = {}
    for path in paths:
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        # The path ends here; others may go on.
        node[''] = {}

    def name_of(name, node, level):
        below = {part: node[part] for part in node if part}
        if '' in node and below:
            below['self'] = {'': {}}
        return name + ('::' + group(below, level) if below else '')

    def group(nodes, level):
        names = sorted(nodes, key=_order)
        if len(names) == 1 and names[0] != 'self':
            return name_of(names[0], nodes[names[0]], level)
        pad = indent + '    ' * (level + 1)
        lines = [f'{pad}{name_of(name, nodes[name], level + 1)},' for name in names]
        return '{\n' + '\n'.join(lines) + ' //\n' + indent + '    ' * level + '}'

    roots = sorted(tree, key=lambda name: (name not in ('self', 'super', 'crate'), name))
    return ''.join(f'{indent}{visibility}use {name_of(root, tree[root], 0)};\n' for root in roots)
