# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# In the virtual machine: a registry and ondemandd, for the tests that source it. scripts/registry.sh says what
# is in /srv.
#
# $program is the name of the test, $log and $metrics are files of the daemon.

# These are for whoever sources it.
# shellcheck disable=SC2034
log=/run/log metrics=/run/metrics

fail() {
	echo "$program: $*" >&2
	tail -n 20 /run/messages >&2
	exit 1
}

# wait_for TEXT COMMAND...: wait until COMMAND succeeds. If it does not, scripts/vm ends the machine and
# shows the end of the kernel log.
wait_for() {
	echo "$program: waiting for $1" >/dev/kmsg
	shift
	until "$@" >/dev/null 2>&1; do usleep 50000; done
}

# listening PORT: somebody listens there.
listening() {
	cat /proc/net/tcp /proc/net/tcp6 | grep -q ":$(printf %04X "$1") [0-9A-F:]* 0A "
}

start_registry() {
	docker-registry serve /srv/config.yml >/run/registry.log 2>&1 &
	registry=$!
	wait_for "the registry" listening 5000
}

stop_registry() {
	kill -9 "$registry"
	wait "$registry" 2>/dev/null || true
}

# started N: so many daemons have been started by a supervisor.
started() {
	[ "$(grep -c '"event":"restore"' "$log" 2>/dev/null)" -ge "$1" ]
}

# kill_daemon: the one that serves, not its supervisor.
kill_daemon() {
	kill -9 "$(sed -n 's/.*"event":"restore".*"pid":\([0-9]*\).*/\1/p' "$log" | tail -n 1)"
}

# metric NAME: the sum of a metric over its labels.
metric() {
	awk -v name="ondemand_$1" '$1 ~ "^" name "([{]|$)" { sum += $NF } END { print sum + 0 }' "$metrics"
}
