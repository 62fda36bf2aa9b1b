#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of licences.py."""

import tempfile
import unittest
from pathlib import Path

import licences

OLD = licences.ALLOWED['GPL-2.0']
NEW = licences.ALLOWED['GPL-2.0-or-later']


class TestLicences(unittest.TestCase):

    def test_expressions(self):
        for text, old, new in [
                ('MIT', True, True),
                ('Apache-2.0', False, True),
                ('MIT OR Apache-2.0', True, True),
                ('MIT/Apache-2.0', True, True),
                ('Apache-2.0 AND ISC', False, True),
                ('(MIT OR Apache-2.0) AND Unicode-3.0', True, True),
                ('Apache-2.0 WITH LLVM-exception', True, True),
                ('Apache-2.0 WITH LLVM-exception AND MIT', True, True),
                ('GPL-2.0', True, False),
                ('GPL-3.0', False, False),
                ('AGPL-3.0 OR SSPL-1.0', False, False),
                ('MIT AND SSPL-1.0', False, False)]:
            self.assertEqual(licences.allows(text, OLD), old, text)
            self.assertEqual(licences.allows(text, NEW), new, text)
        for text in ['', 'MIT OR', '(MIT', 'MIT)', 'AND', 'MIT MIT', 'MIT WITH']:
            with self.assertRaises(licences.Wrong, msg=text):
                licences.allows(text, NEW)

    def test_dependencies(self):
        def packages(**said):
            return {
                'workspace_members': ['own'],
                'resolve': {'nodes': [{'id': name} for name in said if name != 'unused']},
                'packages': [{'id': name, 'name': name, 'version': '1', 'license': licence}
                             for name, licence in said.items()],
            }
        good = packages(own='GPL-2.0-or-later', a='Apache-2.0', unused='SSPL-1.0')
        self.assertEqual(licences.check_dependencies(good, 'GPL-2.0-or-later'), [])
        self.assertEqual(len(licences.check_dependencies(good, 'GPL-2.0')), 2)
        bad = packages(own='GPL-2.0-or-later', a=None, b='MIT OR', c='SSPL-1.0')
        self.assertEqual(len(licences.check_dependencies(bad, 'GPL-2.0-or-later')), 3)

    def test_sources(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            (path / 'a.rs').write_text('// SPDX-License-Identifier: GPL-2.0\n')
            (path / 'Cargo.toml').write_text('# SPDX-License-Identifier: GPL-2.0-or-later\n')
            (path / 'data').write_text('x\n')
            self.assertEqual(len(licences.check_sources(path, 'GPL-2.0')), 1)
            self.assertEqual(len(licences.check_sources(path, 'GPL-2.0-or-later')), 1)
            self.assertEqual(len(licences.check_sources(path, 'MIT')), 2)


if __name__ == '__main__':
    unittest.main()
