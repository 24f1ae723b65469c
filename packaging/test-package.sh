#!/usr/bin/env bash
# Tests the Debian package and the tarball that packaging/build.sh has made: as root, on Debian. The package is installed
# in a copy of this machine's root directory (an overlay in a mount namespace), not on the machine.
. "$(dirname "$0")/lib.sh"
need lintian=lintian man=man-db systemd-analyze=systemd zsh=zsh fish=fish curl=curl

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

say "install, upgrade, remove, purge"
# Everything below runs in the copy; what it changes is gone with its mount namespace.
# shellcheck disable=SC2016
unshare --mount --propagation private bash -euc '
    copy=$(mktemp -d)
    mount -t tmpfs none "$copy"
    mkdir "$copy"/{upper,work,root}
    mount -t overlay none -o "lowerdir=/,upperdir=$copy/upper,workdir=$copy/work" "$copy/root"
    for dir in proc dev sys; do mount --rbind "/$dir" "$copy/root/$dir"; done
    mount --rbind "$0" "$copy/root/mnt"
    mount -t tmpfs none "$copy/root/run"
    exec chroot "$copy/root" bash -euo pipefail -c "$1" test "$2"
' "$out" "$(cat packaging/in-package-test.sh)" "$version"

say "the tarball"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$out" && sha256sum --quiet --check SHA256SUMS)
name=$(basename "$out"/*.tar.gz .tar.gz)
tar -C "$work" -xzf "$out/$name.tar.gz"
grep -qF "$version" <<<"$("$work/$name/kata-runtime" --version)"
# As cargo binstall finds it: pkg-url and bin-dir of Cargo.toml.
[ "$name" = "kata-runtime-$version-$(rustc -vV | sed -n 's/^host: //p')" ]
! grep -q '=>' <<<"$(ldd "$work/$name/kata-runtime" 2>/dev/null)"

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
