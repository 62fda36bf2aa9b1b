# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2317 # functions that check calls
# The cases, the same for each file system. The test of a file system sources this file, defines
#   prepare        load its modules and start its server
#   attach         mount it on $mnt, with the cache; "attach plain" without
#   share          the directory that the server shares, or another view of it without a cache
#   change         a directory through which somebody else changes files, so that the server knows it
#   revalidates    no, if it sees such changes only after it was mounted again
#   twice          no, if it cannot be mounted while readers still use what was unmounted lazily
#   tells_version  yes, if it tells the cache the version of a file when it is closed, not only when it was
#                  written
#   invalidates    no, if what the cache has is not given up when a write to it fails
#   unsupported    those of the operations below that it does not have, as words
# and ends with "run PHASE", where PHASE is
#   first      all cases; leaves a cache that has everything
#   rebooted   the same machine after a reboot: the cache still has everything; then the implementation
#              changes again and again over one cache directory
#   short      of both what takes little time

. ./netfs.sh

revalidates=yes twice=yes tells_version=no invalidates=yes unsupported=''
# What the files must have that the client writes.
model=$cache/model

# The names of the files: of sizes around the blocks of a cache, one with a hole; one for each operation
# that writes; some to have much to read.
plain=(empty byte small odd block big hole)
operations=(overwrite append mapped direct synchronous shrink grow shrink-grow extend punch zero)
mapfile -t bulk < <(printf 'bulk%02d\n' {1..40})
everything=("${plain[@]:1}" "${operations[@]}" "${bulk[@]}")

make_files() {
	local name
	: >"$(share)/empty"
	random "$(share)/byte" 1
	random "$(share)/small" 777
	random "$(share)/odd" 10001
	random "$(share)/block" 4096
	random "$(share)/big" 5000123
	random "$(share)/hole" 300000
	xfs_io -c "truncate 1000000" -c "pwrite -q 900000 5000" "$(share)/hole"
	for name in "${operations[@]}"; do
		random "$(share)/$name" 300001
	done
	for name in "${bulk[@]}"; do
		random "$(share)/$name" 1048576
	done
	mkdir -p "$model"
	(cd "$(share)" && cp "${operations[@]}" "$model") && sync
}

# operate NAME FILE: the operation of that name.
operate() {
	case $1 in
	overwrite) xfs_io -c "pwrite -q -S 0x61 5000 70000" "$2" ;;
	append) xfs_io -c "pwrite -q -S 0x62 300001 12345" "$2" ;;
	mapped) xfs_io -c "mmap -rw 0 200000" -c "mwrite -S 0x63 4090 10000" -c "msync -s" "$2" ;;
	direct) xfs_io -d -c "pwrite -q -S 0x64 -b 65536 8192 131072" "$2" ;;
	synchronous) xfs_io -s -c "pwrite -q -S 0x65 299000 1001" "$2" ;;
	shrink) xfs_io -c "truncate 12345" "$2" ;;
	grow) xfs_io -c "truncate 400001" "$2" ;;
	shrink-grow) xfs_io -c "truncate 5001" -c "truncate 100000" "$2" ;;
	extend) xfs_io -c "falloc 0 500000" "$2" ;;
	punch) xfs_io -c "fpunch 10000 100000" "$2" ;;
	zero) xfs_io -c "fzero 10000 100000" "$2" ;;
	esac
}

# operate_on_both NAME: on the cached file and on the model, which must then be equal. xfs_io tells errors,
# but not by its status.
operate_on_both() {
	local said
	said=$(operate "$1" "$mnt/$1" 2>&1)
	[[ -z $said ]] || {
		echo "$said"
		return 1
	}
	operate "$1" "$model/$1" && same "$model" "$mnt" "$1"
}

# write_over NAME...: again, now that data of the first write may be in the cache; on both.
write_over() {
	local name
	for name; do
		write "$mnt/$name" 20000 3333 && write "$model/$name" 20000 3333 || return
	done
	same "$model" "$mnt" "$@"
}

# write FILE OFFSET LENGTH: so that the server has it.
write() {
	local said
	said=$(xfs_io -c "pwrite -q -S 0x66 $2 $3" -c fsync "$1" 2>&1)
	echo "$said"
	[[ -z $said ]]
}

# The writes, with all that was written compared at each stage.
writes() {
	local name written=()
	check "writes: the files are in the cache" fill "${operations[@]}"
	for name in "${operations[@]}"; do
		if [[ " $unsupported " == *" $name "* ]]; then
			skip "write, $name: the client reads it" "the file system has no such operation"
			continue
		fi
		written+=("$name")
		check "write, $name: the client reads it" operate_on_both "$name"
	done
	forget_pages
	check "writes: the client reads them, not from memory" same "$model" "$mnt" "${written[@]}"
	check "writes: the server has them" same "$model" "$(share)" "${written[@]}"
	check "writes over them: the client reads them" write_over "${written[@]}"
	reattach
	check "writes over them: mounted again, the client reads them" same "$model" "$mnt" "${written[@]}"
	check "writes over them: the server has them" same "$model" "$(share)" "${written[@]}"
	reattach
	check "writes: mounted again, they go into the cache" fill "${written[@]}"
	check "writes: and come from there" warm "${written[@]}"
}

# changed NAME SIZE: somebody else changes the file; the next open shows it.
changed() {
	random "$(change)/$1" "$2" && sync
	[[ $revalidates == yes ]] || reattach || return
	cmp "$(share)/$1" "$mnt/$1"
}

# grows_without_cache: whether the client sees at all that somebody else made a file longer. That of SMB
# in Linux 7.3 reads zeros behind the old end until it is mounted again: only for a new inode does it
# tell netfs where the zeros begin.
grows_without_cache() {
	detach && attach plain && cat "$mnt/small" >"$work/small" || return
	random "$(change)/small" 50000 && sync
	[[ $revalidates == yes ]] || { detach && attach plain; } || return
	cmp "$(share)/small" "$mnt/small"
}

server_changes() {
	local longer="change of the server's file: longer" growing=no
	if grows_without_cache >"$said" 2>&1; then
		growing=yes
	fi
	reattach
	check "changes: the files are in the cache" fill "${plain[@]}"
	# And in memory.
	check "changes: they are read" same "$(share)" "$mnt" "${plain[@]}"
	check "change of the server's file: same size" changed odd 10001
	if [[ $growing == yes ]]; then
		check "$longer" changed block 50000
	else
		skip "$longer" "the client does not see it without a cache, either"
		random "$(change)/block" 50000
	fi
	check "change of the server's file: shorter" changed big 3000001
	check "change of the server's file: again" changed odd 10001
	reattach
	check "changes: mounted again" same "$(share)" "$mnt" "${plain[@]}"
	reattach
	check "changes: they come from the cache" warm "${plain[@]:1}"
}

# module_again: what a reload of the module takes.
module_again() {
	detach && stop_cachefilesd && unload && load "$implementation" && start_cachefilesd "$cache" && attach
}

# The disk is full up to bstop, while the daemon that culls is stopped; then it culls up to brun.
space_ran_out() {
	remember
	same "$(share)" "$mnt" "${bulk[@]}" || return
	sync
	detach || return
	report
	free_percent /srv/full
	(($(more NoSpace.nwr) + $(more NoSpace.ncr) > 0 && $(free_percent /srv/full) >= 15))
}

enough_is_free() {
	(($(free_percent /srv/full) >= 40))
}

# Between the limits at which it begins to cull and ends, the daemon may have ended before the last
# files came.
is_not_short() {
	(($(free_percent /srv/full) >= 30))
}

# More than fits on the disk is read while the daemon culls.
readers_while_culling() {
	remember
	attach && fill "${bulk[@]}" && wait_for is_not_short || return
	culled
}

culled() {
	report
	(($(more NoSpace.cull) > 0))
}

full_cache() {
	detach && stop_cachefilesd && small_disk /srv/full
	start_cachefilesd /srv/full "brun 40%" "bcull 30%" "bstop 20%" && attach
	kill -STOP "$cachefilesd"
	check "full cache: readers do not notice" space_ran_out
	remember
	kill -CONT "$cachefilesd"
	check "full cache: cachefilesd culls up to brun" wait_for enough_is_free
	check "full cache: it has culled" culled
	check "full cache: readers do not notice that it culls" readers_while_culling
	detach && stop_cachefilesd && umount /srv/full
}

# A file in the cache has to be replaced, and there is no inode for the new one.
no_inode_is_free() {
	(($(stat -f -c %d /srv/full) == 0))
}

has_new_size_and_time() {
	[[ $(stat -c '%s %Y' "$mnt/odd") == "$(stat -c '%s %Y' "$(share)/odd")" ]]
}

after_failed_invalidation() {
	local result=right value=right
	if [[ $tells_version == yes ]]; then
		value=$(intended failed-invalidation) || return
	fi
	cmp "$(share)/odd" "$mnt/odd" || result=stale
	echo "$result, $value is intended"
	[[ $result == "$value" ]]
}

failed_invalidation() {
	local n=0
	small_disk /srv/full -N 512
	start_cachefilesd /srv/full && attach
	check "no inode for an invalidation: the file is in the cache" cold odd
	exec 9<"$mnt/odd"
	cat <&9 >/dev/null
	kill -STOP "$cachefilesd"
	until no_inode_is_free; do
		n=$((n + 1))
		: >"/srv/full/use$n" || break
	done
	# The time must differ, in seconds.
	sleep 1
	random "$(change)/odd" 10001
	wait_for has_new_size_and_time
	check "no inode for an invalidation: the client sees the change" cmp "$(share)/odd" "$mnt/odd"
	exec 9<&-
	detach
	rm -f /srv/full/use*
	attach
	check "no inode for an invalidation: mounted again" after_failed_invalidation
	kill -CONT "$cachefilesd"
	detach && stop_cachefilesd && umount /srv/full
}

# reader N: compare files until it is enough. A lazy umount does not take them from it.
reader() {
	local name
	cd "$mnt" || return
	while [[ ! -e $work/enough ]]; do
		for name in "${bulk[@]:$1:10}"; do
			cmp "$work/bulk/$name" "$name" || return
		done
	done
}

forgetter() {
	# Without a line in the kernel log each time, which scripts/vm would take for progress.
	echo 4 >/proc/sys/vm/drop_caches
	while [[ ! -e $work/enough ]]; do
		echo 1 >/proc/sys/vm/drop_caches
		sleep 0.1
	done
}

# busy: readers, of which none finds the data in memory.
busy() {
	local n
	rm -rf "$work/enough" "$work/bulk"
	mkdir "$work/bulk" && (cd "$(share)" && cp "${bulk[@]}" "$work/bulk")
	readers=()
	for n in 0 10 20 30; do
		reader "$n" >"$work/reader$n" 2>&1 &
		readers+=("$!")
	done
	forgetter &
	readers+=("$!")
}

idle() {
	local pid rc=0
	: >"$work/enough"
	for pid in "${readers[@]}"; do
		wait "$pid" || rc=1
	done
	cat "$work"/reader*
	return "$rc"
}

# A reader that has ended would be waited for in vain.
has_failed() {
	cat "$work"/reader* | grep -q .
}

# There is I/O to the cache.
is_used() {
	(($(more CaRdOps.RD) + $(more CaWrOps.WR) > 50)) || has_failed
}

reads() {
	(($(more DownOps.DL) + $(more CaRdOps.RD) > 50)) || has_failed
}

used_and_killed() {
	remember
	wait_for is_used
	stop_cachefilesd KILL || return
	remember
	wait_for reads
}

under_load() {
	start_cachefilesd "$cache" && attach
	busy
	check "under load: cachefilesd is killed" used_and_killed
	check "under load: the module is unloaded" wait_for unload
	remember
	wait_for reads
	check "under load: the module is loaded again" load "$implementation"
	check "under load: cachefilesd starts again" start_cachefilesd "$cache"
	remember
	wait_for reads
	check "under load: no reader noticed" idle
	detach
	attach
	busy
	remember
	wait_for is_used
	check "under load: a lazy umount" umount -l "$mnt"
	if [[ $twice == yes ]]; then
		check "under load: mounted again" attach
	else
		skip "under load: mounted again" "the server takes one client"
	fi
	remember
	wait_for reads
	check "under load: no reader noticed the umount" idle
	[[ $twice == no ]] || umount "$mnt"
	check "under load: fscache has given up everything" wait_for cookies_are_gone
}

# What works and lasts.
cold_and_warm() {
	check "the server has files" make_files
	check "the module is loaded" load "$implementation" || finish
	check "cachefilesd binds the cache" start_cachefilesd "$cache" || finish
	check "the file system is mounted" attach || finish
	check "cold: from the server, and into the cache" cold "${plain[@]}"
	check "warm: mounted again" warm "${plain[@]:1}"
	check "the module is loaded again" module_again
	check "warm: the module was loaded again" warm "${plain[@]:1}"
}

first() {
	cold_and_warm
	writes
	server_changes
	full_cache
	if [[ $revalidates == yes ]]; then
		failed_invalidation
	else
		skip "no inode for an invalidation" "the client sees changes only after it was mounted again"
	fi
	under_load
	attach
	check "before the reboot: everything is read" fill "${everything[@]}"
	check "before the reboot: and comes from the cache" warm "${everything[@]}"
	detach && stop_cachefilesd
	check "the module is unloaded" unload
}

# leg N c|rust: the implementation finds the directory as the last one left it.
leg() {
	local files=("${bulk[@]:0:8}")
	check "leg $1, $2: begins" begin_leg "$2" || return
	if (($1 == 1)); then
		check "leg $1, $2: cold" cold "${files[@]}"
	else
		check "leg $1, $2: comes from the cache" warm "${files[@]}"
	fi
	check "leg $1, $2: the server's file changes" changed "${bulk[$1]}" 1048576
	check "leg $1, $2: the client writes" client_writes "${bulk[$(($1 + 2))]}"
	reattach
	check "leg $1, $2: mounted again" fill "${files[@]}"
	check "leg $1, $2: comes from the cache again" warm "${files[@]}"
	detach
	stop_cachefilesd
	check "leg $1, $2: ends" unload
}

begin_leg() {
	load "$1" && start_cachefilesd "$cache/legs" && attach
}

client_writes() {
	cp "$(share)/$1" "$model/$1" && write "$model/$1" 3000 400000 && write "$mnt/$1" 3000 400000 &&
		same "$model" "$mnt" "$1" && same "$model" "$(share)" "$1"
}

# fill_up DIR: make files that leave less of its file system than bstop.
fill_up() {
	local n=0
	while (($(free_percent "$1") >= 10)); do
		n=$((n + 1))
		fallocate -l 1M "$1/ballast$n" || return
	done
}

begin_full_leg() {
	load "$1" && start_cachefilesd /srv/full "brun 40%" "bcull 30%" "bstop 20%" && attach
}

# The time of the server's file is set back, so that a version that is the time is that of before.
refused_write() {
	touch -r "$(share)/$1" "$work/time" && cp "$(share)/$1" "$model/$1" && fill_up /srv/full || return
	# The cache may go by the free space of up to 100 ms ago.
	sleep 0.2
	remember
	write "$model/$1" 40000 50000 && write "$mnt/$1" 40000 50000 && same "$model" "$mnt" "$1" || return
	report
	[[ $invalidates == yes ]] || (($(more NoSpace.nwr) > 0)) || return
	detach && touch -r "$work/time" "$(share)/$1" && rm /srv/full/ballast*
}

after_refused_write() {
	local result=right value=right
	if [[ $invalidates == no ]]; then
		value=$(intended refused-write) || return
	fi
	same "$model" "$mnt" "$1" || result=stale
	echo "$result, $value is intended"
	[[ $result == "$value" ]]
}

# The cache does not store what the client writes, for lack of space. What it had there is of before,
# also for C, which has no list of what is in a file.
full_legs() {
	local file=${bulk[20]}
	small_disk /srv/full
	check "full leg, $implementation: begins" begin_full_leg "$implementation" || return
	check "full leg, $implementation: cold" cold "$file"
	kill -STOP "$cachefilesd"
	check "full leg, $implementation: the client writes" refused_write "$file"
	kill -CONT "$cachefilesd"
	stop_cachefilesd
	check "full leg, $implementation: ends" unload
	check "full leg, c: begins" begin_full_leg c || return
	check "full leg, c: what the client wrote" after_refused_write "$file"
	detach
	stop_cachefilesd
	check "full leg, c: ends" unload
	umount /srv/full
}

rebooted() {
	check "the module is loaded" load "$implementation" || finish
	check "cachefilesd binds the cache" start_cachefilesd "$cache" || finish
	check "the file system is mounted" attach || finish
	check "warm: the machine was rebooted" warm "${everything[@]}"
	detach && stop_cachefilesd
	check "the module is unloaded" unload || finish
	leg 1 c
	leg 2 "$implementation"
	leg 3 c
	leg 4 "$implementation"
	full_legs
}

short() {
	cold_and_warm
	writes
	server_changes
	detach && stop_cachefilesd
	check "the module is unloaded" unload || finish
	leg 1 c
	leg 2 "$implementation"
	leg 3 c
}

run() {
	check "the server runs" prepare || finish
	"$1"
	sync
	finish
}
