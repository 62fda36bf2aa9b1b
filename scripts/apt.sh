# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Debian 13's backports, where the kernels come from. To be sourced after lib.sh.
#
# An archive description of our own: neither the host's sources nor its package state are used.

KERNELS=$CACHE/kernel
mkdir -p "$KERNELS"

apt() {
	local command=$1 dir=$KERNELS/apt
	shift
	"$command" -o Dir::State="$dir/state" -o Dir::State::status=/dev/null -o Dir::Cache="$dir/cache" \
		-o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
		-o Acquire::Languages=none "$@"
}

# The mirror is the one the toolchain root was made from.
update_lists() {
	local toolchain=$1 keys
	keys=$toolchain/usr/share/keyrings/debian-archive-keyring.gpg
	mkdir -p "$KERNELS/apt/state/lists/partial" "$KERNELS/apt/cache/archives/partial"
	sed -nE "s|^deb (\[.*\] )?(https?:[^ ]+) trixie .*|deb [signed-by=$keys] \2 trixie-backports main|p" \
		"$toolchain/etc/apt/sources.list" | head -n 1 >"$KERNELS/apt/sources.list"
	apt apt-get update -o APT::Update::Error-Mode=any && touch "$KERNELS/apt/updated"
}

is_fresh() {
	[[ -n $(find "$KERNELS/apt/updated" -mmin -1440 2>/dev/null) ]]
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
