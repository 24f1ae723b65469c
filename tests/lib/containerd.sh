#!/usr/bin/env bash
# Real containerds for the tests and the demo: packages, images, private daemons, and the end of all that.
#
# Source it for the functions, or run one of them: `bash tests/lib/containerd.sh <function> <argument>...`
# (that is how the Rust tests use it). Every function that starts something takes a directory DIR in which all
# of it lives; `ctd_clean DIR` ends it, whatever state it is in, and does not need containerd's help for that.
set -euo pipefail

# --- packages ---------------------------------------------------------------------------------------------

# ctd_need COMMAND=PACKAGE...: installs the packages whose commands are missing, saying first which.
ctd_need() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
        # Debian has two packages of busybox; only the static one runs where there is nothing else.
        if [ "$pair" = busybox=busybox-static ] && ldd "$(command -v busybox)" >/dev/null 2>&1; then
            missing+=(busybox-static)
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "Installing these Debian packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        echo "Only root can install packages, and only root can run containers: run this as root." >&2
        return 1
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}")
    # A fresh machine has no package lists, an old one has outdated ones; a good one needs no update.
    "${install[@]}" </dev/null >/dev/null 2>&1 && return 0
    apt-get -qq update </dev/null && "${install[@]}" </dev/null >/dev/null
}

# The mirror that this machine gets Debian from.
ctd_mirror() {
    local found
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -nE 's#^(URIs:|deb( \[[^]]*\])?)[[:space:]]+(https?://[^[:space:]]+/debian)/?([[:space:]].*)?$#\3#p' |
        head -n 1) || true
    echo "${found:-http://deb.debian.org/debian}"
}

# ctd_unpack SUITE PACKAGE DEST: unpacks (does not install) a package of another Debian suite into DEST. PACKAGE is a
# regular expression that one package's name matches. Fails, with the reason on stderr, where it cannot be had.
ctd_unpack() {
    local suite=$1 package=$2 dest=$3 work apt
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(ctd_mirror) $suite main" >"$work/sources.list"
    apt=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
        -o Acquire::http::Timeout=30 -o Acquire::Retries=2)
    if ! apt-get "${apt[@]}" update >"$work/log" 2>&1 </dev/null ||
        ! package=$(apt-cache "${apt[@]}" search --names-only "$package" | cut -d' ' -f1 | sort -V | tail -n 1) ||
        ! (cd "$work" && apt-get "${apt[@]}" download "$package") >>"$work/log" 2>&1 </dev/null ||
        ! { rm -rf "$dest" && mkdir -p "$dest" && dpkg -x "$work"/*.deb "$dest"; } >>"$work/log" 2>&1; then
        tail -n 3 "$work/log" >&2
        rm -rf "$work"
        return 1
    fi
    rm -rf "$work"
}

# ctd_fetch SUITE DEST: the containerd of another Debian suite, unpacked into DEST. Prints the directory of its binaries.
# Fails, with the reason on stderr, where that cannot be had.
ctd_fetch() {
    local suite=$1 dest=$2 bin=$2/usr/bin
    if ! "$bin/containerd" --version >/dev/null 2>&1; then
        ctd_unpack "$suite" '^containerd$' "$dest" && "$bin/containerd" --version >/dev/null || return 1
    fi
    echo "$bin"
}

# ctd_versions CACHE: the directories of the containerds to test with, joined by colons: the machine's own, and
# those of newer Debian suites (1.7 and 2.1 beside Debian 12's 1.6). Fails where one cannot be had.
ctd_versions() {
    local cache=$1 suite bin own list
    own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    cache=$(realpath -m "$cache")
    list=$(dirname "$(command -v containerd)")
    for suite in trixie forky; do
        [ "$suite" != "$own" ] || continue
        if bin=$(ctd_fetch "$suite" "$cache/$suite"); then
            list+=:$bin
        else
            echo "The containerd of Debian $suite cannot be had here. To test without it, name the directories of" >&2
            echo "those to test with, joined by colons, in KATA_RUNTIME_TEST_CONTAINERDS." >&2
            return 1
        fi
    done
    echo "$list"
}

# --- an image, without a registry -------------------------------------------------------------------------

# The name under which `ctd_image`'s image is imported.
CTD_IMAGE=localhost/busybox:1

# ctd_image TAR: writes an OCI image with a static busybox and nothing else.
ctd_image() {
    local tar=$1 work applet digest size arch
    work=$(mktemp -d)
    arch=$(dpkg --print-architecture)
    mkdir -p "$work/rootfs"/{bin,dev,etc,proc,root,sys,tmp,var} "$work/oci/blobs/sha256"
    cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
    for applet in $("$work/rootfs/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$work/rootfs/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$work/rootfs/etc/passwd"
    tar -C "$work/rootfs" --owner=0 --group=0 --sort=name --mtime=@0 -cf "$work/layer" .

    # blob FILE: stores a file under its digest; leaves that and its size in $digest and $size.
    blob() {
        digest=$(sha256sum "$1" | cut -d' ' -f1)
        size=$(stat -c %s "$1")
        cp "$1" "$work/oci/blobs/sha256/$digest"
    }
    local media=application/vnd.oci.image
    blob "$work/layer"
    local layer="{\"mediaType\":\"$media.layer.v1.tar\",\"digest\":\"sha256:$digest\",\"size\":$size}"
    echo "{\"architecture\":\"$arch\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"],\"Cmd\":[\"sleep\",\"1000000\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$digest\"]}}" >"$work/config"
    blob "$work/config"
    echo "{\"schemaVersion\":2,\"mediaType\":\"$media.manifest.v1+json\",\"config\":{\"mediaType\":\"$media.config.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size},\"layers\":[$layer]}" >"$work/manifest"
    blob "$work/manifest"
    echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"$media.manifest.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size,\"annotations\":{\"io.containerd.image.name\":\"$CTD_IMAGE\",\"org.opencontainers.image.ref.name\":\"1\"}}]}" >"$work/oci/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
    tar -C "$work/oci" -cf "$tar" .
    rm -rf "$work"
}

# --- a private containerd ---------------------------------------------------------------------------------

# ctd_start DIR BIN SHIMS: starts the containerd in BIN with everything of its own under DIR, finding shims in
# BIN and SHIMS, and returns when it answers. DIR must be short: sockets live in it. With CTD_CRI=1 it serves CRI
# as well, for pods in the host's network; the runtime handler `test` has the test shim manage its sandboxes.
ctd_start() {
    local dir=$1 bin=$2 shims=$3 tries
    mkdir -p "$dir"
    # NRI and the directory of optional plugins are one for the whole machine; CRI is seldom used and starts slowly.
    local disabled='"io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"'
    [ -n "${CTD_CRI:-}" ] ||
        disabled+=', "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"'
    cat >"$dir/config.toml" <<CONFIG
version = 2
root = "$dir/root"
state = "$dir/state"
disabled_plugins = [$disabled]
[grpc]
address = "$dir/containerd.sock"
[ttrpc]
address = "$dir/containerd.ttrpc.sock"
CONFIG
    [ -z "${CTD_CRI:-}" ] || cat >>"$dir/config.toml" <<CONFIG
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$CTD_IMAGE"
restrict_oom_score_adj = true
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "$dir/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.test]
runtime_type = "io.containerd.test-sandbox.v2"
sandboxer = "shim"
CONFIG
    PATH=$bin:$shims:$PATH:/usr/sbin:/sbin setsid "$bin/containerd" --config "$dir/config.toml" \
        >"$dir/containerd.log" 2>&1 </dev/null &
    echo $! >"$dir/containerd.pid"
    for tries in $(seq 300); do
        if "$bin/ctr" --address "$dir/containerd.sock" --connect-timeout 1s version >/dev/null 2>&1; then
            echo "$bin" >"$dir/bin"
            return 0
        fi
        kill -0 "$(cat "$dir/containerd.pid")" 2>/dev/null || break
        sleep 0.1
    done
    echo "containerd did not come up after $tries tries; the end of its log:" >&2
    tail -n 20 "$dir/containerd.log" >&2
    return 1
}

# ctd_ctr DIR ARGUMENT...: the ctr that belongs to DIR's containerd.
ctd_ctr() {
    local dir=$1
    shift
    "$(cat "$dir/bin")/ctr" --address "$dir/containerd.sock" "$@"
}

# ctd_id PREFIX: an id that nobody on this machine had before.
ctd_id() {
    echo "$1-$$-$(date +%s%N)"
}

# ctd_run DIR NAMESPACE ID OPTION... -- COMMAND...: starts a container in the background; the options are ctr's.
ctd_run() {
    local dir=$1 namespace=$2 id=$3 options=()
    shift 3
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    # Noted before it starts, so that ctd_clean knows of it whatever happens.
    echo "$namespace $id" >>"$dir/ids"
    ctd_ctr "$dir" --namespace "$namespace" run --detach --null-io "${options[@]}" "$CTD_IMAGE" "$id" "$@" </dev/null
}

# ctd_run_sandbox DIR NAMESPACE ID OPTION... -- COMMAND...: a pod's sandbox under the test shim (tests/sandbox-shim).
ctd_run_sandbox() {
    local dir=$1 namespace=$2 id=$3
    shift 3
    ctd_run "$dir" "$namespace" "$id" --runtime io.containerd.test-sandbox.v2 \
        --annotation io.kubernetes.cri.container-type=sandbox --annotation io.kubernetes.cri.sandbox-id="$id" "$@"
}

# ctd_run_child DIR NAMESPACE ID SANDBOX OPTION... -- COMMAND...: a container in that sandbox.
ctd_run_child() {
    local dir=$1 namespace=$2 id=$3 sandbox=$4
    shift 4
    ctd_run "$dir" "$namespace" "$id" --runtime io.containerd.test-sandbox.v2 \
        --annotation io.kubernetes.cri.container-type=container --annotation io.kubernetes.cri.sandbox-id="$sandbox" "$@"
}

# --- the end ----------------------------------------------------------------------------------------------

# ctd_end PID: ends one process, gently if it listens.
ctd_end() {
    local pid=$1
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

# ctd_shims DIR: the process ids of the shims that DIR's containerd started; they carry its address.
ctd_shims() {
    # The pattern comes by a file so that grep does not find itself; a process may end before it is read.
    grep -slF -f <(echo "$1/containerd.sock") /proc/[0-9]*/cmdline | cut -d/ -f3 || true
}

# ctd_clean DIR: ends DIR's containerd, its shims and its containers, and removes all that they left anywhere.
ctd_clean() {
    local dir=$1 pid bundle address namespace id cgroup mount fifo
    [ -d "$dir" ] || return 0
    if [ -s "$dir/containerd.pid" ]; then
        ctd_end "$(cat "$dir/containerd.pid")"
    fi
    # Shims first: a stopped one would hold up everything else, and none is needed for what follows.
    for pid in $(ctd_shims "$dir"); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    for bundle in "$dir"/state/io.containerd.runtime.v2.task/*/* "$dir"/state/io.containerd.sandbox.controller.v1.shim/*/*; do
        [ -d "$bundle" ] || continue
        namespace=$(basename "$(dirname "$bundle")") id=$(basename "$bundle")
        echo "$namespace $id" >>"$dir/ids"
        address=$(grep -ohE '/run/containerd/s/[0-9A-Fa-f]+' "$bundle/address" "$bundle/bootstrap.json" 2>/dev/null | head -n 1) || true
        [ -z "$address" ] || rm -f "$address"
        ctd_delete "$bundle/runc" "$id"
    done
    while read -r namespace id; do
        ctd_delete "/run/containerd/runc/$namespace" "$id"
        rmdir "/run/containerd/runc/$namespace" 2>/dev/null || true
        rm -rf "/run/vc/sbs/$id" "/run/kata/$id"
        for fifo in /run/containerd/fifo/*/"$id"-*; do
            [ ! -e "$fifo" ] || rm -rf "$(dirname "$fifo")"
        done
        for cgroup in /sys/fs/cgroup/"$namespace"/"$id" /sys/fs/cgroup/*/"$namespace"/"$id"; do
            [ -d "$cgroup" ] || continue
            ctd_empty_cgroup "$cgroup"
            # Others use the namespace `default` as well, and may be making a container there just now.
            [ "$namespace" = default ] || rmdir "$(dirname "$cgroup")" 2>/dev/null || true
        done
    done < <(cat "$dir/ids" 2>/dev/null | sort -u)
    while read -r mount; do
        umount -l "$mount" 2>/dev/null || true
    done < <(cut -d' ' -f2 /proc/self/mounts | grep -F "$dir/" | tac)
    rm -rf "$dir"
}

# ctd_delete ROOT ID: ends a container that runc knows under that root, and its cgroup.
ctd_delete() {
    [ -d "$1/$2" ] || return 0
    PATH=$PATH:/usr/sbin runc --root "$1" delete --force "$2" >/dev/null 2>&1 || true
}

# ctd_empty_cgroup DIR: kills what still runs in a container's cgroup and removes it.
ctd_empty_cgroup() {
    local cgroup=$1 pid
    for _ in $(seq 20); do
        while read -r pid; do
            kill -KILL "$pid" 2>/dev/null || true
        done <"$cgroup/cgroup.procs"
        rmdir "$cgroup" 2>/dev/null && return 0
        [ -d "$cgroup" ] || return 0
        sleep 0.1
    done
    echo "the cgroup $cgroup is still in use" >&2
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    case "${1:-}" in
        ctd_*) "$@" ;;
        *)
            echo "usage: $0 ctd_<function> <argument>..." >&2
            exit 2
            ;;
    esac
fi
