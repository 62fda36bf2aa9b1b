# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# A registry in a virtual machine: what is to be in it, and what is told to it and to ondemandd. To be
# sourced after lib.sh; tools/testing/vm/registry.sh is the other half.

certificates=$TOP/tools/ondemandd/src/source/http/testdata
# The repository.
repository=team/app

# digest_of FILE: as registries write it.
digest_of() {
	printf 'sha256:%s\n' "$(sha256sum <"$1" | cut -d ' ' -f 1)"
}

# stored DIGEST: where docker-registry looks for a blob, below its root directory.
stored() {
	local hex=${1#*:}
	echo "docker/registry/v2/blobs/sha256/${hex:0:2}/$hex/data"
}

# add WORK LINK FILE: have the registry's storage, WORK/registry, contain a file, as if it had been pushed.
# LINK is "_layers" or "_manifests/revisions".
add() {
	local digest path links
	digest=$(digest_of "$3")
	path=$1/registry/$(stored "$digest")
	links=$1/registry/docker/registry/v2/repositories/$repository/$2/sha256/${digest#*:}
	mkdir -p "${path%/*}" "$links"
	cp "$3" "$path"
	printf %s "$digest" >"$links/link"
}

# descriptor TYPE FILE [ROLE]: of a layer, in a manifest.
descriptor() {
	printf '{"mediaType":"%s","digest":"%s","size":%s' "$1" "$(digest_of "$2")" "$(stat -c %s "$2")"
	[[ -z ${3-} ]] || printf ',"annotations":{"org.erofs.role":"%s"}' "$3"
	printf '}'
}

# add_layer WORK TYPE FILE [ROLE]: a layer and its index, which is beside FILE; prints their descriptors.
add_layer() {
	add "$1" _layers "$3"
	add "$1" _layers "$3.chunk-index"
	descriptor "$2" "$3" "${4-}"
	printf ,
	descriptor application/vnd.erofs.chunk-index.v1 "$3.chunk-index"
}

# add_image WORK DESCRIPTORS: an image; prints the digest of its manifest.
add_image() {
	local manifest=$1/manifest
	printf '{}' >"$1/config"
	add "$1" _layers "$1/config"
	printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' \
		application/vnd.oci.image.manifest.v1+json \
		"$(descriptor application/vnd.oci.image.config.v1+json "$1/config")" "$2" >"$manifest"
	add "$1" _manifests/revisions "$manifest"
	digest_of "$manifest"
}

# configure WORK AUTH: WORK/config.yml for a registry at localhost:5000 with TLS, and WORK/conf for it and for
# ondemandd. AUTH are the lines of its configuration that say who may use it.
configure() {
	mkdir -p "$1/conf/hosts/localhost:5000"
	# The password is "open sesame".
	# shellcheck disable=SC2016 # it is no variable
	echo 'alibaba:$2b$04$hGITsmYa7cwzyoGa/vMJheVAQCsOUbCreUNWmjFvOyVd7yMpRfTz2' >"$1/conf/htpasswd"
	echo '{"credHelpers":{"localhost:5000":"test"}}' >"$1/conf/config.json"
	cp "$certificates"/{ca,cert,key}.pem "$1/conf"
	cat >"$1/config.yml" <<-END
	version: 0.1
	log:
	  level: error
	  accesslog:
	    disabled: true
	storage:
	  filesystem:
	    rootdirectory: /srv/registry
	http:
	  addr: 127.0.0.1:5000
	  tls:
	    certificate: /srv/conf/cert.pem
	    key: /srv/conf/key.pem
	auth:
	$2
	END
}

# copies WORK: options for scripts/vm that have all of this in the machine, and docker-registry.
copies() {
	local root library
	root=$("$TOP/scripts/machine/debian-root" docker-registry) || return
	for library in /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6; do
		echo --copy "$root$library:$library"
	done
	echo --copy "$root/usr/bin/docker-registry:/bin/docker-registry" \
		--copy "$TOP/tools/testing/vm/registry.sh" \
		--copy "$TOP/tools/testing/vm/docker-credential-test:/bin/docker-credential-test" \
		--copy "$1/registry:/srv/registry" --copy "$1/config.yml:/srv/config.yml" \
		--copy "$1/conf:/srv/conf" --copy "$1/tree:/srv/tree"
}
