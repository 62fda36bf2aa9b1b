#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of graft.py: run by `scripts/check upstream`."""

import unittest
from textwrap import dedent

import graft
from rust_source import format_use, parse_use


def text(source):
    return dedent(source).lstrip('\n')


class Rust(unittest.TestCase):
    def test_imports_are_those_of_the_tree_in_one_list(self):
        ours = text('''
            use crate::{
                bindings,
                kernel_next::{
                    compat::{
                        this_module,
                        EOPNOTSUPP, //
                    },
                    fs::path::Path, //
                }, //
            };
            use kernel::{
                fs::File,
                prelude::*, //
            };
            ''')
        self.assertEqual(graft.rust(ours, True), text('''
            use crate::{
                bindings,
                fs::{
                    path::Path,
                    File, //
                },
                module::this_module,
                prelude::*, //
            };
            '''))
        self.assertEqual(graft.rust(ours.replace('    bindings,\n', ''), False), text('''
            use kernel::{
                fs::{
                    path::Path,
                    File, //
                },
                module::this_module,
                prelude::*, //
            };
            '''))

    def test_a_path_and_one_below_it_need_self(self):
        paths = parse_use('use a::{b::{self, c}, d as e};')[1]
        self.assertEqual(set(paths), {('a', 'b', 'self'), ('a', 'b', 'c'), ('a', 'd as e')})
        self.assertEqual(format_use({('a', 'b'), ('a', 'b', 'c')}),
                         'use a::b::{\n    self,\n    c, //\n};\n')

    def test_visibility(self):
        ours = 'pub(crate) fn f() {}\n\npub(in crate::kernel_next) fn g() {}\n\npub(super) fn h() {}\n'
        self.assertEqual(graft.rust(ours, True),
                         'pub fn f() {}\n\npub(crate) fn g() {}\n\npub(super) fn h() {}\n')
        # In the driver nothing is for others.
        self.assertEqual(graft.rust('pub(crate) fn f() {}\n', False), 'pub(crate) fn f() {}\n')

    def test_what_is_for_the_host_goes(self):
        ours = text('''
            /// Only there.
            #[cfg(test)]
            fn host() {
                f();
            }

            #[cfg(not(test))]
            fn kernel() {}

            #[cfg_attr(
                CONFIG_KUNIT = "y",
                kernel::prelude::kunit_tests(suite)
            )]
            mod tests {}
            ''')
        self.assertEqual(graft.rust(ours, False).strip(), text('''
            fn kernel() {}

            #[kernel::prelude::kunit_tests(suite)]
            mod tests {}
            ''').strip())

    def test_suites_have_an_option(self):
        self.assertEqual(graft.rust('#[kunit_tests(x)]\nmod tests {}\n', True),
                         '#[cfg(CONFIG_RUST_FS_KUNIT_TEST)]\n#[kunit_tests(x)]\nmod tests {}\n')
        self.assertEqual(graft.rust('#[kernel::prelude::kunit_tests(x)]\nmod tests {}\n', True),
                         '#[cfg(CONFIG_RUST_FS_KUNIT_TEST)]\n#[crate::prelude::kunit_tests(x)]\nmod tests {}\n')
        self.assertEqual(graft.rust('#[cfg(CONFIG_KUNIT = "y")]\nmod tests;\n', False),
                         '#[cfg(CONFIG_CACHEFILES_RUST_KUNIT_TEST)]\nmod tests;\n')

    def test_own_crates_and_owners_go(self):
        ours = text('''
            #[path = "../kernel/lib.rs"]
            mod kernel_next;
            mod cache;

            impl Device for Daemon {
                type Ptr = u8;
                type OwnerModule = crate::LocalModule;
            }
            ''')
        self.assertEqual(graft.rust(ours, False), text('''
            mod cache;

            impl Device for Daemon {
                type Ptr = u8;
            }
            '''))

    def test_tests_can_be_left_for_later(self):
        rest, tests = graft.split_tests('fn f() {}\n\n#[kunit_tests(x)]\nmod tests {\n    use super::*;\n}\n')
        self.assertEqual(rest, 'fn f() {}\n')
        self.assertIn('mod tests', tests)


class MergeRust(unittest.TestCase):
    tree = text('''
        use crate::bindings;

        /// The tree's.
        pub struct S(u8);

        impl S {
            pub fn old(&self) {}

            const VTABLE: bindings::file_operations = bindings::file_operations {
                open: Some(Self::open),
                owner: this_module(),
                ..pin_init::zeroed()
            };
        }
        ''')

    def test_only_what_is_new_is_added(self):
        ours = text('''
            use crate::{
                bindings,
                sync::New,
                sync::Unused, //
            };

            /// Ours.
            pub struct S(u16);

            impl S {
                pub fn old(&self) {
                    ours();
                }

                /// More.
                pub fn new(&self) -> New {}

                const VTABLE: bindings::file_operations = bindings::file_operations {
                    open: Some(Self::open),
                    read: Some(Self::read),
                    owner: other(),
                    ..pin_init::zeroed()
                };
            }

            pub fn function() {}

            #[kunit_tests(x)]
            mod tests {}
            ''')
        self.assertEqual(graft.merge_rust(self.tree, ours), text('''
            use crate::{
                bindings,
                sync::New, //
            };

            /// The tree's.
            pub struct S(u8);

            impl S {
                pub fn old(&self) {}

                const VTABLE: bindings::file_operations = bindings::file_operations {
                    open: Some(Self::open),
                    read: Some(Self::read),
                    owner: this_module(),
                    ..pin_init::zeroed()
                };

                /// More.
                pub fn new(&self) -> New {}
            }

            pub fn function() {}

            #[kunit_tests(x)]
            mod tests {}
            '''))

    def test_what_it_has_stays_as_it_is(self):
        self.assertEqual(graft.merge_rust(self.tree, self.tree), self.tree)

    def test_modules_are_declared_in_order(self):
        self.assertEqual(graft.declare_module('mod a;\n#[cfg(X)]\npub mod c;\n', 'b', '#[cfg(Y)]'),
                         'mod a;\n#[cfg(Y)]\npub mod b;\n#[cfg(X)]\npub mod c;\n')
        one_by_one = 'pub mod b;\npub use b::B;\n'
        with_c = graft.declare_module(one_by_one, 'c')
        self.assertEqual(graft.declare_module(with_c, 'a'), one_by_one + '\npub mod a;\npub mod c;\n')


class C(unittest.TestCase):
    def test_helpers_are_added_once(self):
        tree = '// SPDX-License-Identifier: GPL-2.0\n\n#include <linux/b.h>\n\nint rust_helper_x(void)\n{\n}\n'
        ours = tree.replace('b.h', 'a.h') + '\nint rust_helper_y(void)\n{\n}\n'
        merged = graft.merge_helper(tree, ours)
        self.assertEqual(merged.count('rust_helper_x('), 1)
        self.assertEqual(merged.count('rust_helper_y('), 1)
        self.assertLess(merged.index('a.h'), merged.index('b.h'))

    def test_headers_go_into_the_list(self):
        tree = '#include <first.h>\n\n#include <linux/a.h>\n#include <linux/c.h>\n\nconst int X = 1;\n\n#if Z\nconst int Z = 1;\n#endif\n'
        ours = '#include <linux/b.h>\n#include <linux/none.h>\nconst int Y = 1;\n'
        self.assertEqual(
            graft.merge_bindings(tree, ours, lambda header: header != 'linux/none.h'),
            '#include <first.h>\n\n#include <linux/a.h>\n#include <linux/b.h>\n#include <linux/c.h>\n\n'
            'const int X = 1;\n\nconst int Y = 1;\n\n#if Z\nconst int Z = 1;\n#endif\n')

    def test_older_kernels_are_forgotten(self):
        self.assertEqual(graft.without_versions(text('''
            #include <linux/version.h>
            a();
            #if LINUX_VERSION_MAJOR == 7 && LINUX_VERSION_PATCHLEVEL < 3
            #ifdef X
            old();
            #endif
            #else
            new();
            #endif
            #ifdef Y
            y();
            #endif
            ''')), 'a();\nnew();\n#ifdef Y\ny();\n#endif\n')


if __name__ == '__main__':
    unittest.main()
