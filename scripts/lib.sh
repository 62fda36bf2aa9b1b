# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Shared by the scripts in this directory and those below it: where things live, how they speak.

set -euo pipefail

# No build must inherit the job server or the variables of a make that called us.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

say() {
	printf '%s\n' "$*" >&2
}

# die TEXT...: print one sentence that says what is wrong and what to do about it, and fail.
die() {
	say "error: $*"
	exit 1
}

# --help prints the head of the script; that of vm is written otherwise.
if [[ ${1-} == -h || ${1-} == --help ]] && [[ ${0##*/} != vm ]]; then
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit
fi

TOP=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
CACHE=${CACHEFILES_RS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cachefiles-rs}
[[ $CACHE == /* ]] || CACHE=$PWD/$CACHE
mkdir -p "$CACHE" 2>/dev/null ||
	die "the cache directory $CACHE cannot be made; run as root, or set CACHEFILES_RS_CACHE to a directory of your own."
CACHE=$(realpath "$CACHE")
export CACHEFILES_RS_CACHE=$CACHE

# The factor for all time limits; the tests in the virtual machine get it, too.
PATIENCE=${CACHEFILES_RS_PATIENCE:-1}
[[ $PATIENCE =~ ^[1-9][0-9]{0,2}$ ]] || die "CACHEFILES_RS_PATIENCE is a whole number from 1 to 999, not '$PATIENCE'."
export CACHEFILES_RS_PATIENCE=$PATIENCE

# A short name for the content of stdin.
digest() {
	sha256sum | cut -c1-12
}

need_root() {
	((EUID == 0)) || die "this needs root (for chroot and mount); run it again with sudo."
}

# need_space GIB: fail if the cache directory has less free space.
need_space() {
	local free
	free=$(($(df --output=avail -k "$CACHE" | tail -n 1) / 1048576))
	((free >= $1)) || die "only $free GiB free in $CACHE, $1 are needed;" \
		"free some space or set CACHEFILES_RS_CACHE to a directory on a larger disk."
}

# lock NAME: hold the cache's lock NAME until this (sub)shell ends.
lock() {
	local file=$CACHE/$1.lock fd
	mkdir -p "$(dirname "$file")"
	exec {fd}>"$file"
	flock -n "$fd" && return
	say "waiting for another run to finish with $file ..."
	flock "$fd"
}

# step LOG TEXT COMMAND...: run a long command with its output in LOG, and print its last line now and
# then.
step() {
	local log=$1 text=$2 start=$SECONDS pid rc=0 last
	shift 2
	say "$text ..."
	"$@" >"$log" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		(((SECONDS - start) % 10 == 9)) || continue
		last=$(tail -n 1 "$log" | tr -d '\r' | cut -c1-90)
		say "    $((SECONDS - start)) s: $last"
		sleep 1
	done
	wait "$pid" || rc=$?
	((rc != 0)) || say "    done in $((SECONDS - start)) s"
	return "$rc"
}

# starved GROUP: set "starved" to the ms for which a thread of the process group was runnable and had no
# CPU since the last call: the maximum over its threads. "queued" has the totals of the last call.
starved() {
	local stat fields schedstat delay more
	starved=0
	for stat in /proc/[0-9]*/stat; do
		{ read -r fields <"$stat"; } 2>/dev/null || continue
		[[ ${fields##*) } =~ ^[^\ ]+\ [0-9]+\ $1\  ]] || continue
		for schedstat in "${stat%stat}"task/*/schedstat; do
			{ read -r _ delay _ <"$schedstat"; } 2>/dev/null || continue
			delay=$((delay / 1000000))
			more=$((delay - ${queued[$schedstat]:-$delay}))
			queued[$schedstat]=$delay
			((more <= starved)) || starved=$more
		done
	done
}

# watch GROUP SECONDS PROGRESS STALLED: wait for the end of the process group GROUP for as long as it makes
# progress, that is, as the output of the command PROGRESS changes. After SECONDS times PATIENCE without
# progress, the command STALLED is called; if it succeeds, watch waits for a quarter of that time more,
# else watch fails. Time for which the group was runnable but had no CPU does not count, and of the time
# between two looks 10 s at most: after more, this machine was suspended or its clock was set.
watch() {
	local group=$1 limit=$(($2 * PATIENCE * 1000)) progress=$3 stalled=$4
	local silent=0 last now passed seen='' state starved
	local -A queued=()
	now=$(milliseconds)
	while kill -0 -- "-$group" 2>/dev/null; do
		sleep 1
		last=$now
		now=$(milliseconds)
		passed=$((now - last))
		((passed <= 10000)) || passed=10000
		starved "$group"
		state=$("$progress")
		if [[ $state != "$seen" ]]; then
			silent=0 seen=$state
		elif ((passed > starved)); then
			silent=$((silent + passed - starved))
		fi
		((silent >= limit)) || continue
		"$stalled" || return 1
		silent=$((limit * 3 / 4))
	done
}

# The time since boot.
milliseconds() {
	local seconds
	read -r seconds _ </proc/uptime
	echo "${seconds/./}0"
}

# end_group GROUP: end a process group by SIGTERM, and after five seconds by SIGKILL.
end_group() {
	local tries=50
	kill -- "-$1" 2>/dev/null || return 0
	while kill -0 -- "-$1" 2>/dev/null && ((tries-- > 0)); do
		sleep 0.1
	done
	kill -KILL -- "-$1" 2>/dev/null || true
}

# offline LOG: did the command that wrote LOG fail for want of a network?
offline() {
	grep -qEi 'could not resolve|temporary failure (resolving|in name)|unable to connect|could not connect|network is unreachable|couldn.t resolve host|connection (timed out|refused)' "$1"
}

# version_text CONFIG NAME: a string option of a kernel configuration.
version_text() {
	sed -n "s/^CONFIG_$2=\"\(.*\)\"/\1/p" "$1"
}

# config_arch CONFIG: the architecture of a kernel configuration, x86_64 or arm64.
config_arch() {
	if grep -qx CONFIG_ARM64=y "$1"; then
		echo arm64
	else
		echo x86_64
	fi
}

# compiler_name clang|gcc: what it is called in the toolchain.
compiler_name() {
	case $1 in
	clang) echo clang ;;
	gcc) echo x86_64-linux-gnu-gcc-14 ;;
	esac
}

# make_options ARCH clang|gcc: the variables, one a line, that make kbuild build for ARCH with that
# compiler. It is clang that can build for another architecture than its own.
make_options() {
	[[ $1 == x86_64 ]] || printf 'ARCH=%s\n' "$1"
	case $2 in
	clang) echo LLVM=1 ;;
	gcc) echo "CC=$(compiler_name gcc)" ;;
	esac
}

# module_options CONFIG: the same for modules of a kernel that is there. Its compiler goes by the name
# that it was configured with, or kbuild would see another one.
module_options() {
	local cc
	cc=$(version_text "$1" CC_VERSION_TEXT)
	if [[ $cc == *clang* ]]; then
		make_options "$(config_arch "$1")" clang
	else
		echo "CC=${cc%% *}"
	fi
}

# check_compilers CONFIG KERNEL: Rust modules need the very compilers that the kernel was built with.
check_compilers() {
	local root have want cc
	root=$("$TOP/scripts/kernels/toolchain")
	have=$(chroot "$root" rustc --version)
	want=$(version_text "$1" RUSTC_VERSION_TEXT)
	if [[ $have == "$want" ]]; then
		want=$(version_text "$1" CC_VERSION_TEXT)
		# "gcc-14 (Debian ...) ...", but "Debian clang version ...".
		cc=${want%% *}
		[[ $want != *clang* ]] || cc=clang
		have=$(chroot "$root" "$cc" --version 2>/dev/null | head -n 1) || true
		[[ $have != "$want" ]] || return 0
	fi
	die "$2 was built with '$want' but the toolchain has '${have:-none}';" \
		"remove $root and run again to make it from today's packages, or give another tree with KDIR=."
}

# is_kernel DIR: whether this directory of the cache has a complete kernel that was made in this place.
# Kbuild stores absolute paths, so no module can be built for a kernel that was moved.
is_kernel() {
	[[ -e $1/.complete ]] && grep -qxF "export KBUILD_OUTPUT = $1/kdir" "$1/kdir/Makefile"
}

# build_dir: the directory for the products of this checkout; each clone has its own.
build_dir() {
	printf '%s\n' "$CACHE/build/$(printf '%s\n' "$TOP" | digest)"
}

# cargo_dir: where cargo builds for this checkout. Clones cannot share it: cargo takes the packages of
# one clone for those of the other.
cargo_dir() {
	printf '%s\n' "$(build_dir)/cargo"
}

# out_dir KDIR: where this checkout's modules for the kernel tree KDIR are built.
out_dir() {
	printf '%s\n' "$(build_dir)/modules-$(realpath "$1" | digest)"
}

# kernel_log_result NAME STATUS: what the exit status STATUS of scripts/vm says, as a test for
# scripts/results/ktap-total. The results of the programs that ran are in their output; this one is
# for what went wrong beside them.
kernel_log_result() {
	echo "@begin $1"
	echo 1..1
	case $2 in
	0 | 1) echo "ok 1 the kernel reported nothing" ;;
	99) echo "not ok 1 the kernel reported trouble, see above" ;;
	124) echo "not ok 1 the tests printed nothing for long, see above" ;;
	*) echo "not ok 1 the machine failed, status $2" ;;
	esac
	echo "@end $1 0"
}

# by_itself ARG...: unless this script runs as a part of a test, run it again as one, count its results,
# and exit; the exit status says whether all are good.
by_itself() {
	[[ -z ${CACHEFILES_RS_PART-} ]] || return 0
	CACHEFILES_RS_PART=1 "$0" "$@" | "$TOP/scripts/results/ktap-total"
	exit
}

# part NAME [ARG]...: run scripts/NAME for scripts/results/ktap-total. A part that cannot run has
# failed; its error is on the terminal.
part() {
	local rc=0
	CACHEFILES_RS_PART=1 "$TOP/scripts/$1" "${@:2}" || rc=$?
	((rc == 0)) || printf '@begin %s\n1..1\nnot ok 1 %s could not run, see above\n@end %s 1\n' "$1" "$1" "$1"
}
