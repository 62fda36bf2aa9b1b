# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Results of a test program in KTAP. To be sourced; the program ends with finish.

set -u
results=0 failures=0 said=$(mktemp)

# check TEXT COMMAND...: one result. The output of COMMAND is shown if it fails.
check() {
	local text=$1 rc
	shift
	results=$((results + 1))
	# Not in a subshell: COMMAND may start daemons and set variables.
	"$@" >"$said" 2>&1
	rc=$?
	if ((rc)); then
		failures=$((failures + 1))
		echo "not ok $results $text"
		echo "# status $rc"
		tail -n 20 "$said" | sed 's/^/# /'
	else
		echo "ok $results $text"
	fi
	return "$rc"
}

# skip TEXT REASON: a result for what cannot be tested here.
skip() {
	results=$((results + 1))
	echo "ok $results $1 # SKIP $2"
}

# wait_for COMMAND...: until COMMAND succeeds. If it does not, scripts/vm ends this program and shows
# the end of the kernel log.
wait_for() {
	echo "${0##*/}: waiting for $*" >/dev/kmsg
	until "$@" >/dev/null 2>&1; do sleep 0.1; done
}

# End the processes that are still running, so that the next program can open the device.
finish() {
	local pids
	mapfile -t pids < <(jobs -p)
	((!${#pids[@]})) || kill "${pids[@]}" 2>/dev/null
	wait
	echo "1..$results"
	exit $((failures > 0))
}
