# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the tests of a cache for network file systems share: the modules, cachefilesd, counters and files.
# To be sourced.

# shellcheck source=../clients/ktap.sh
. ./ktap.sh

tests=$PWD
# The disk that a reboot keeps.
export cache=/var/cache/fscache
work=/srv/work
mnt=/srv/mnt
implementation=${CACHEFILES_IMPLEMENTATION:-rust}
mkdir -p "$work" "$mnt"

# intended ID: the value that intended-differences.txt has for the implementation under test.
intended() {
	local value
	value=$(awk -F ' *[|] *' -v id="$1" -v column="$([[ $implementation == c ]] && echo 2 || echo 3)" \
		'$1 == id { print $column }' "$tests/intended-differences.txt")
	[[ -n $value ]] || {
		echo "intended-differences.txt has no line '$1'"
		return 1
	}
	echo "# intended difference: $1" >&3
	echo "$value"
}
# Not within the output of a check, which is shown only if it fails.
exec 3>&1

# load c|rust: the cachefiles of the kernel, or ours.
load() {
	local dir=kernel
	[[ $1 == c ]] || dir=updates
	modprobe netfs && insmod "/lib/modules/$(uname -r)/$dir/cachefiles.ko" && wait_for test -c /dev/cachefiles
}

unload() {
	rmmod cachefiles
}

# The state of the cache, one letter, as in /proc/fs/fscache/caches: A is active.
cache_state() {
	awk '$7 == "test" { print $6 }' /proc/fs/fscache/caches
}

is_active() {
	[[ $(cache_state) == A ]]
}

ended() {
	! kill -0 "$1" 2>/dev/null
}

active_or_ended() {
	is_active || ended "$cachefilesd"
}

# start_cachefilesd DIR [LINE]...: Debian's daemon, with a cache in DIR; LINEs are for its configuration.
# It ends itself if an address on its heap looks like a mark that it leaves in freed places of its tables:
# in one run of 16, unless addresses are not random.
start_cachefilesd() {
	local dir=$1
	shift
	mkdir -p "$dir"
	printf '%s\n' "dir $dir" "tag test" "$@" >"$work/cachefilesd.conf"
	setarch --addr-no-randomize cachefilesd -n -s -f "$work/cachefilesd.conf" \
		-p "$work/cachefilesd.pid" >"$work/cachefilesd.log" 2>&1 &
	cachefilesd=$!
	wait_for active_or_ended
	is_active || {
		cat "$work/cachefilesd.log"
		return 1
	}
}

# stop_cachefilesd [SIGNAL]: the cache is withdrawn when its process is gone.
stop_cachefilesd() {
	kill "-${1-TERM}" "$cachefilesd" || {
		echo "# cachefilesd has ended by itself:"
		sed 's/^/# /' "$work/cachefilesd.log"
	}
	{ wait "$cachefilesd"; } 2>/dev/null
	! is_active
}

# counter NAME.FIELD: of /proc/fs/netfs/stats.
counter() {
	sed 's/ *: */ /' /proc/fs/netfs/stats | awk -v name="${1%.*}" -v field="${1#*.}" '
		$1 == name {
			for (i = 2; i <= NF; i++)
				if (split($i, part, "=") == 2 && part[1] == field)
					print part[2]
		}'
}

# remember: the values of the counters that "more" compares with.
remember() {
	local name
	declare -gA old
	for name in DownOps.DL CaRdOps.RD CaRdOps.rf CaWrOps.WR CaWrOps.ws CaWrOps.wf Invals.n \
		NoSpace.nwr NoSpace.ncr NoSpace.cull; do
		old[$name]=$(counter "$name")
	done
}

# more NAME.FIELD: by how much the counter is higher than it was.
more() {
	echo $(($(counter "$1") - old[$1]))
}

# report: how the counters moved; a check shows it if it fails.
report() {
	local name
	for name in "${!old[@]}"; do
		printf '%s +%s\n' "$name" "$(more "$name")"
	done | sort | paste -sd ' '
}

cookies_are_gone() {
	[[ $(counter Cookies.n) == 0 && $(counter Cookies.v) == 0 ]]
}

# detach: unmount, and wait until fscache has given up all that was in use for it.
detach() {
	umount "$mnt" && wait_for cookies_are_gone
}

reattach() {
	detach && attach
}

# forget_pages: what is read next is not read from memory.
forget_pages() {
	sync && echo 3 >/proc/sys/vm/drop_caches
}

# random NAME SIZE: a file of random bytes, written in place.
random() {
	head -c "$2" /dev/urandom >"$1"
}

# same DIR DIR NAME...: whether the files are equal in both directories.
same() {
	local one=$1 two=$2 name rc=0
	shift 2
	for name; do
		cmp "$one/$name" "$two/$name" || rc=1
	done
	return "$rc"
}

# copy NAME...: read the files from the client. They are compared later, because reading the server's can
# move the counters, too, if that is by another mount.
copy() {
	local name
	rm -rf "$work/copy"
	mkdir "$work/copy"
	for name; do
		# cp would leave out holes.
		cat "$mnt/$name" >"$work/copy/$name" || return
	done
}

# cold NAME...: the files come from the server, and go into the cache.
cold() {
	remember
	copy "$@" || return
	# Some file systems write to the cache with the next write-back.
	sync
	reattach || return
	report
	(($(more DownOps.DL) > 0 && $(more CaWrOps.WR) > 0 && $(more CaWrOps.wf) == 0)) &&
		same "$(share)" "$work/copy" "$@"
}

# warm NAME...: all of the files comes from the cache.
warm() {
	remember
	copy "$@" || return
	report
	(($(more DownOps.DL) == 0 && $(more CaRdOps.RD) > 0 && $(more CaRdOps.rf) == 0)) &&
		same "$(share)" "$work/copy" "$@"
}

# fill NAME...: read the files so that the cache has them, whatever it had.
fill() {
	same "$(share)" "$mnt" "$@" && sync && reattach
}

# small_disk DIR OPTION...: an empty ext4 in memory, made with these options of mkfs.
small_disk() {
	local dir=$1
	shift
	modprobe brd rd_nr=1 rd_size=32768 && mkfs.ext4 -q -F -m 0 -b 4096 "$@" /dev/ram0 &&
		mkdir -p "$dir" && mount -t ext4 -o noinit_itable /dev/ram0 "$dir"
}

# free_percent DIR: of the blocks of its file system.
free_percent() {
	local free all
	read -r free all < <(stat -f -c '%a %b' "$1")
	echo $((free * 100 / all))
}
