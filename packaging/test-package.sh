#!/usr/bin/env bash
# Tests the Debian package and the tarball that packaging/build.sh has made: as root, on Debian. The package is installed
# in a copy of this machine's root directory (an overlay in a mount namespace), not on the machine.
. "$(dirname "$0")/lib.sh"
need lintian=lintian man=man-db systemd-analyze=systemd systemd-nspawn=systemd-container zsh=zsh fish=fish curl=curl

version=$(version)
deb=$(ls "$out"/kata-runtime_*_*.deb)

say "lintian"
lintian --allow-root --fail-on error,warning "$deb"

say "the unit's exposure"
exposure=$(systemd-analyze security --offline=true --no-pager packaging/systemd/kata-runtime-monitor.service |
    sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p')
awk -v exposure="$exposure" 'BEGIN { exit !(exposure != "" && exposure <= 2.0) }' ||
    { say "systemd-analyze security says ${exposure:-nothing}, more than 2.0"; exit 1; }

say "upgrade: the same package with another revision"
rm -rf "$out/next"
mkdir "$out/next"
"$tools/bin/cargo-deb" --no-build --quiet --deb-revision 2 --output "$out/next/" >/dev/null

# in_copy COMMAND...: runs it where $COPY is this machine's root directory, writable; what it changes there is gone afterwards.
in_copy() {
    # shellcheck disable=SC2016
    unshare --mount --propagation private bash -euo pipefail -c '
        base=$(mktemp -d)
        mount -t tmpfs none "$base"
        mkdir "$base"/{upper,work,root}
        mount -t overlay none -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
        COPY=$base/root
        export COPY
        "$@"
    ' in_copy "$@"
}

say "install, upgrade, remove, purge"
# shellcheck disable=SC2016
in_copy bash -euo pipefail -c '
    for dir in proc dev sys; do mount --rbind "/$dir" "$COPY/$dir"; done
    mount --rbind "$0" "$COPY/mnt"
    mount -t tmpfs none "$COPY/run"
    exec chroot "$COPY" bash -euo pipefail -c "$1" test "$2"
' "$out" "$(cat packaging/in-package-test.sh)" "$version"

say "the service under a booted systemd"
in_copy packaging/boot-test.sh "$deb"

say "the tarball"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$out" && sha256sum --quiet --check SHA256SUMS)
name=$(basename "$out"/*.tar.gz .tar.gz)
tar -C "$work" -xzf "$out/$name.tar.gz"
grep -qF "$version" <<<"$("$work/$name/kata-runtime" --version)"
# As cargo binstall finds it: pkg-url and bin-dir of Cargo.toml.
[ "$name" = "kata-runtime-$version-$(rustc -vV | sed -n 's/^host: //p')" ]
[[ $(ldd "$work/$name/kata-runtime" 2>&1) != *"=>"* ]]

say "the image's size: at most 8 MB in memory and on disk"
[ "$(stat -c %s "$work/$name/kata-runtime")" -le 8000000 ]
[ "$(stat -c %s "$out"/*-image.tar)" -le 8000000 ]

say "the bill of materials"
python3 - "$out/$name.cdx.json" <<'PYTHON'
import json, sys
bom = json.load(open(sys.argv[1]))
assert bom["bomFormat"] == "CycloneDX", bom["bomFormat"]
assert bom["metadata"]["component"]["name"] == "kata-runtime"
components = {component["name"]: component for component in bom["components"]}
missing = {"clap", "tokio", "shimstat", "promtext"} - components.keys()
assert not missing, missing
tests = {"divan", "proptest", "test-needs"} & components.keys()
assert not tests, f"only tests need {tests}"
without = [name for name, component in components.items() if not component.get("licenses")]
assert not without, f"without a licence: {without}"
PYTHON
say "the package, the tarball and the bill of materials are as they should be"
