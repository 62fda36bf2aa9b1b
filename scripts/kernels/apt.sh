# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Debian 13's backports, where the kernels come from, and the programs of another architecture. To be
# sourced after lib.sh.
#
# An archive description of our own: neither the host's sources nor its package state are used.

KERNELS=$CACHE/kernel
mkdir -p "$KERNELS"

# archive DIR ARCHITECTURE SUITE: what the functions below are about.
archive() {
	apt_dir=$KERNELS/$1 apt_arch=$2 apt_suite=$3
}
archive apt amd64 trixie-backports

apt() {
	local command=$1 dir=$apt_dir
	shift
	"$command" -o Dir::State="$dir/state" -o Dir::State::status=/dev/null -o Dir::Cache="$dir/cache" \
		-o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
		-o APT::Architecture="$apt_arch" -o APT::Architectures="$apt_arch" -o APT::Sandbox::User=root \
		-o Acquire::Languages=none "$@"
}

# The mirror is the one the toolchain root was made from.
update_lists() {
	local toolchain=$1 keys
	keys=$toolchain/usr/share/keyrings/debian-archive-keyring.gpg
	mkdir -p "$apt_dir/state/lists/partial" "$apt_dir/cache/archives/partial"
	sed -nE "s|^deb (\[.*\] )?(https?:[^ ]+) trixie .*|deb [signed-by=$keys] \2 $apt_suite main|p" \
		"$toolchain/etc/apt/sources.list" | head -n 1 >"$apt_dir/sources.list"
	apt apt-get update -o APT::Update::Error-Mode=any && touch "$apt_dir/updated"
}

is_fresh() {
	[[ -n $(find "$apt_dir/updated" -mmin -1440 2>/dev/null) ]]
}

# fetch DIR PACKAGE...: downloads packages into the new directory DIR.
fetch() {
	mkdir "$1" && cd "$1" && apt apt-get download "${@:2}"
}

# unpack_source DEB DIR: the kernel source in a linux-source package, into DIR/src.
unpack_source() {
	local deb=$1 dir=$2
	"$TOP/scripts/in-toolchain" dpkg-deb -x "$deb" "$dir/deb/source" &&
		mkdir "$dir/src" &&
		"$TOP/scripts/in-toolchain" tar -C "$dir/src" --strip-components=1 -xf \
			"$dir"/deb/source/usr/src/linux-source-*.tar.xz
}

no_network() {
	die "no network and no prepared $1 in $KERNELS; connect this machine (or set http_proxy) and run again."
}
