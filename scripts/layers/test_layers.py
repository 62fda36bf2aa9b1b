#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of layers.py, on a driver of a few lines."""

import tempfile
import unittest
from pathlib import Path

import layers

ROOT = '''\
//! | module | what is there |
//! |---|---|
//! | [`plan`] | pure |
//! | [`debug`] | a macro |
//! | `file::map` | below its parent |
//! | [`file`] | |
//! | [`ask`], [`read`] | the circle |
//! | [`top`] | |
'''

FILES = {
    'cachefiles_main.rs': ROOT,
    'plan.rs': 'mod blocks;\nuse self::blocks::Blocks;\n',
    'plan/blocks.rs': 'use core::ops::Range;\nuse super::Part;\n',
    'debug.rs': 'use kernel::prelude::*;\nmacro_rules! step {\n    () => { $crate::debug::on() };\n}\n',
    'file.rs': 'pub(crate) mod map;\nuse self::map::Map;\nuse crate::{\n    kernel_next::fs,\n    plan::blocks, //\n};\n',
    'file/map.rs': 'use crate::plan::blocks::Blocks;\n',
    'ask.rs': 'use crate::read::Read;\n',
    'read.rs': 'use crate::ask::Ask;\nfn f() { crate::file::f(); step!("a step"); }\n',
    'top.rs': 'use super::ask::Ask;\ntype Owner = crate::LocalModule;\n',
    'tests/top.rs': 'use crate::nothing;\n',
}


class TestLayers(unittest.TestCase):

    def wrong(self, **changes):
        """What is wrong with the files above, to some of which lines are added, or all of one."""
        with tempfile.TemporaryDirectory() as directory:
            for name, text in FILES.items():
                path = Path(directory) / name
                path.parent.mkdir(exist_ok=True)
                added = changes.get(name.removesuffix('.rs').replace('/', '__'), '')
                path.write_text(added[1:] if added.startswith('=') else text + added, encoding='utf-8')
            return [line.replace(directory + '/', '') for line in layers.check(directory)]

    def test_layers_in_order_are_right(self):
        self.assertEqual(self.wrong(), [])

    def test_a_module_may_not_be_named_from_below(self):
        for named in ('use crate::top::Top;\n', 'use super::{\n    ask::{\n        self, //\n    },\n};\n',
                      'fn f() { crate::top::f(); }\n', 'pub(crate) use crate::read::Read as Other;\n',
                      'use crate::{plan::Part, top::*};\n'):
            wrong = self.wrong(file=named)
            self.assertEqual(len(wrong), 1, named)
            self.assertRegex(wrong[0], r'^file\.rs:7: file names (top|ask|read), which is above it$')

    def test_comments_and_strings_name_nothing(self):
        self.assertEqual(self.wrong(file='// use crate::top;\n/// [`crate::top`]\nf("crate::top::f")\n'), [])

    def test_a_child_may_have_a_row_below_its_parent(self):
        self.assertEqual(self.wrong(file__map='fn f() { super::f(); }\n'),
                         ['file/map.rs:2: file::map names file, which is above it'])
        self.assertEqual(self.wrong(file__map='fn f(x: super::super::top::T) {}\n'),
                         ['file/map.rs:2: file::map names top, which is above it'])

    def test_pure_modules_know_nothing_but_core(self):
        for named in ('use kernel::prelude::*;\n', 'use crate::kernel_next::fs;\n',
                      'fn f() { kernel::pr_info(); }\n', 'use std::vec::Vec;\n'):
            wrong = self.wrong(plan__blocks=named)
            self.assertEqual(len(wrong), 1, named)
            self.assertIn('plan/blocks.rs:3: plan names', wrong[0])

    def test_who_uses_a_macro_names_its_module(self):
        self.assertEqual(self.wrong(plan='fn f() { step!("a step"); }\n'),
                         ['plan.rs:3: plan names debug, which is above it'])

    def test_one_circle_of_two_may_be_in_the_table(self):
        apart = ROOT.replace('[`ask`], [`read`] | the circle |', '[`ask`] | |\n//! | [`read`] | |')
        self.assertEqual(self.wrong(cachefiles_main='=' + apart),
                         ['ask.rs:1: ask names read, which is above it'])
        for more in (ROOT.replace('[`read`]', '[`read`], [`top`]').replace('//! | [`top`] | |\n', ''),
                     ROOT.replace('[`plan`]', '[`plan`], [`debug`]').replace('//! | [`debug`] | a macro |\n', '')):
            self.assertIn('cachefiles_main.rs: only one row of the table may have two modules, and none more',
                          self.wrong(cachefiles_main='=' + more))

    def test_table_and_files_are_the_same(self):
        self.assertEqual(self.wrong(cachefiles_main='//! | [`gone`] | |\n'),
                         ['cachefiles_main.rs: there is no module gone'])
        wrong = self.wrong(cachefiles_main='=' + ROOT.replace('//! | [`top`] | |\n', ''))
        self.assertEqual(wrong, ['top.rs: top is not in the table of cachefiles_main.rs'])

    def test_the_root_is_named_by_nobody(self):
        self.assertEqual(self.wrong(top='use crate::Driver;\n'), ["top.rs:3: top names Driver, which is the root's"])


if __name__ == '__main__':
    unittest.main()
