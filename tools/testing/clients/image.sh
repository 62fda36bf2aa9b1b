# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Images, blobs and mounts of them, for the tests of clients. To be sourced.

# shellcheck disable=SC2034 # for those who source this
cache=/var/cache/fscache
work=$(mktemp -d)
tree=$work/tree

# make_image NAME [OPTION]...: of $tree, with nydus-image: a bootstrap, and in blobs/ one blob.
make_image() {
	local name=$1
	shift
	mkdir -p "$work/$name/blobs"
	nydus-image create --fs-version 6 --type directory --bootstrap "$work/$name/bootstrap" \
		--blob-dir "$work/$name/blobs" "$@" "$tree"
}

blob_of() {
	ls "$work/$1/blobs"
}

# entry NAME DOMAIN: what nydusd has to be told of an image.
entry() {
	jq -n --arg image "$work/$1" --arg domain "$2" '{
		type: "bootstrap", id: $domain, domain_id: $domain,
		config: {
			id: $domain,
			backend_type: "localfs", backend_config: {dir: "\($image)/blobs"},
			cache_type: "fscache", cache_config: {work_dir: $image},
			metadata_path: "\($image)/bootstrap"
		}}'
}

# mount_image NAME DOMAIN DIR: with stock EROFS, over ondemandfs.
mount_image() {
	mkdir -p "$work/$2.ondemandfs" "$3"
	mount -t ondemandfs none "$work/$2.ondemandfs" -o "domain=$2" &&
		mount -t erofs "$work/$2.ondemandfs/$2" "$3" -o "device=$work/$2.ondemandfs/$(blob_of "$1")"
}

umount_image() {
	umount "$2" && umount "$work/$1.ondemandfs"
}

# listing DIR: names, types, owners, times, sizes; the size of a directory is the file system's own affair.
listing() {
	(cd "$1" && find . -type d -printf '%p %M %U %G\n' -o -printf '%p %M %U %G %n %s %T@ %l\n' | sort)
}

same_listing() {
	diff <(listing "$tree") <(listing "$1")
}

# same_content DIR: every byte of every file.
same_content() {
	diff -r --no-dereference --exclude=fifo "$tree" "$1"
}

forget_pages() {
	echo 3 >/proc/sys/vm/drop_caches
}
