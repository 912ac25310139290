# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Packages of any Debian suite, each pinned with its checksum. Downloads them
# through an apt state of its own for each suite, under build/apt, so that the
# machine's apt configuration stays as it is. To be read after lib.sh.

apt_mirror() {
	# shellcheck disable=SC2016 # apt's own variables
	apt-get indextargets --format '$(LABEL)|$(REPO_URI)' | sed -n 's/^Debian|//p' | head -1
}

# apt_suite SUITE - Set apt_options to use that suite; fetch its lists, once.
apt_suite() {
	local dir=$BUILD/apt/$1 uri
	apt_options=(-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
		     -o "Dir::State::Lists=$dir/lists" -o "Dir::State::status=$dir/status"
		     -o "Dir::Cache=$dir" -o "Dir::Cache::archives=$dir/archives"
		     -o APT::Sandbox::User=root)
	[ "${apt_fetched:-}" != "$1" ] || return 0
	need debian-archive-keyring
	uri=$(apt_mirror)
	if [ -z "$uri" ]; then
		say "offpath: no Debian mirror among this machine's apt sources: add one and run 'apt-get update'"
		return 1
	fi
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	: >"$dir/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $1 main" >"$dir/sources.list"
	step "package lists of $1" apt-get "${apt_options[@]}" update || return
	apt_fetched=$1
}

# fetch_deb SUITE PACKAGE VERSION SHA256 - Download a package, and set DEB to
# its path. Where that version has gone, take the newest, with a warning. Fails
# if there is none, or no network; a wrong checksum ends the program.
fetch_deb() {
	local suite=$1 package=$2 pinned=$3 sha256=$4 version=$3 dir=$BUILD/apt/$1 got
	apt_suite "$suite" || return
	# Not "show PACKAGE=VERSION", which succeeds for a version that has gone.
	if ! apt-cache "${apt_options[@]}" madison "$package" | awk '{ print $3 }' | grep -xF -- "$pinned" >/dev/null; then
		version=$(apt-cache "${apt_options[@]}" policy "$package" | awk '$1 == "Candidate:" { print $2 }')
		if [ -z "$version" ] || [ "$version" = "(none)" ]; then
			say "offpath: there is no $package in $suite"
			return 1
		fi
		say "WARNING: $package $pinned, which is pinned, has gone from $suite; taking $version"
	fi
	rm -f "$dir/$package"_*.deb
	(cd "$dir" && step "download $package" apt-get "${apt_options[@]}" download "$package=$version") || return
	DEB=$(printf '%s' "$dir/$package"_*.deb)
	got=$(sha256sum "$DEB" | cut -d' ' -f1)
	[ "$version" != "$pinned" ] || [ "$got" = "$sha256" ] ||
		die "$package $pinned has sha256 $got, pinned is $sha256: do not use it"
}

# fetch_list FILE FOLDER - Unpack the packages of FILE, a line "suite package
# version sha256" each, in FOLDER; nothing to do if they are there. Fails as
# fetch_deb does.
fetch_list() {
	local suite package version sha256
	{
		flock 9
		! cmp -s "$1" "$2/packages" || return 0
		rm -rf "$2"
		mkdir -p "$2"
		while read -r suite package version sha256; do
			[ "$suite" != '#' ] || continue
			fetch_deb "$suite" "$package" "$version" "$sha256" &&
				step "unpack $package" dpkg-deb -x "$DEB" "$2" || return
			rm -f "$DEB"
		done <"$1"
		cp "$1" "$2/packages"
	} 9>"$2.lock"
}
