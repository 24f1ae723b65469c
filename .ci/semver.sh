#!/usr/bin/env bash
# Whether the libraries keep what their versions promise: compares their public API with that of an earlier revision, and
# fails where something that was there is gone or has changed and the version does not say so. The argument is the
# revision; without one it is the newest tag of a release before this commit. Installs cargo-semver-checks below target/.
# Takes minutes: the libraries and all that they depend on are documented twice.
set -euo pipefail
cd "$(dirname "$0")/.."
libraries=(exporter-web go-duration promtext shimstat)

baseline=${1:-$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null || true)}
if [ -z "$baseline" ]; then
    echo "semver: there was no release yet: nothing to compare with"
    exit 0
fi
tools=${CARGO_TARGET_DIR:-target}/tools
[ -x "$tools/bin/cargo-semver-checks" ] || cargo install --quiet --locked --root "$tools" cargo-semver-checks@0.51.0
PATH=$(realpath "$tools/bin"):$PATH
# shellcheck disable=SC2046 # words, each of them
cargo semver-checks --baseline-rev "$baseline" $(printf -- '--package %s ' "${libraries[@]}")
