# SPDX-License-Identifier: GPL-2.0
#
# The commands of this repository; `make help` lists them. Kbuild says how the modules are built.

# No target is a file: the scripts know what is up to date.
.PHONY: modules run test test-debug test-fs test-clients test-netfs test-crash test-keep compare bench bench-results bench-check profile series series-check check shell modules_install clean help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

KDIR ?=

modules:
	@scripts/build/modules $(KDIR)

run:
	@scripts/run

test:
	@scripts/test

test-debug:
	@scripts/test-debug

test-fs:
	@scripts/test-fs

compare:
	@scripts/compare

bench:
	@scripts/bench

bench-results:
	@scripts/bench --results

bench-check:
	@scripts/bench --check

profile:
	@scripts/bench --profile ours

test-clients:
	@scripts/test-clients

test-netfs:
	@scripts/test-netfs

test-crash:
	@scripts/test-crash --long

test-keep:
	@scripts/test-keep

series:
	@scripts/series

series-check:
	@scripts/series-check

check:
	@scripts/check

shell:
	@scripts/build/modules >/dev/null
	@scripts/vm --interactive

modules_install:
	@scripts/modules-install $(KDIR)

clean:
	@scripts/clean

help:
	@echo 'make                  build cachefiles.ko and ondemandfs.ko for the stock Debian kernel'
	@echo 'make KDIR=/path       build them for another prepared kernel tree'
	@echo 'make run              the main job: mount a Debian image lazily in a virtual machine and use it'
	@echo 'make test             all tests: on the host, then in a virtual machine'
	@echo 'make test-debug       KUnit suites and selftests on the debug kernel (KASAN, lockdep, kmemleak)'
	@echo 'make test-fs          the selftests with the cache on ext4 with small blocks, xfs and btrfs'
	@echo 'make test-clients     unmodified nydusd serves images, from a directory and from a registry'
	@echo 'make test-netfs       NFS, SMB and 9p with a cache, and Debian'"'"'s cachefilesd'
	@echo 'make test-keep        what was fetched stays: 100 000 runs on five file systems, and 50 kills (two hours)'
	@echo 'make test-crash       thousands of states that a crash can leave of a cache directory (hours)'
	@echo 'make compare          the selftests on the C implementation and on ours, and the differences'
	@echo 'make bench            the cost of a read, beside the C implementation and others'
	@echo 'make bench-results    the same, and store the results in the documents'
	@echo 'make bench-check      measure ours, and fail if it costs more than the stored results'
	@echo 'make profile          instructions of a read and of an open, by function'
	@echo 'make series           the patch series for the kernel, as mails; nothing is sent'
	@echo 'make series-check     check that each patch builds and the result boots (x86_64, arm64; hours)'
	@echo 'make check            formatting, lints and the rules of the code'
	@echo 'make shell            a shell in a virtual machine, with the modules'
	@echo 'make modules_install  install the modules on this machine, for the kernel of KDIR'
	@echo 'make clean            remove what this checkout built'
	@echo
	@echo 'Everything fetched or built is kept in $${CACHEFILES_RS_CACHE:-~/.cache/cachefiles-rs},'
	@echo 'which can be removed at any time. Single commands: scripts/vm --help.'
