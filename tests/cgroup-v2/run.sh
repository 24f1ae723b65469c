#!/usr/bin/env bash
# Runs end-to-end tests on cgroup v2, whatever this machine has: in a virtual machine with Debian's kernel, emulated, as not
# every machine has KVM. The guest's disk has the test program, kata-runtime, and containerd and runc with their libraries.
#
#   tests/cgroup-v2/run.sh [TEST...]    words in the names of tests; the comparison of docs/cgroup-v2.md is the default
#
# The time that the guest may take is 480 s, or GUEST_SECONDS.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/lib/containerd.sh

here=$PWD
tests=("${@:-cgroup_v2::}")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
ctd_need qemu-system-x86_64=qemu-system-x86 mke2fs=e2fsprogs xz=xz-utils objcopy=binutils tmux=tmux \
    containerd=containerd runc=runc busybox=busybox-static

kernel=$target/cgroup-v2/kernel
[ -n "$(find "$kernel/boot" -name 'vmlinuz-*' 2>/dev/null)" ] ||
    ctd_unpack trixie '^linux-image-[0-9.]+.*-cloud-amd64$' "$kernel"
containerds=${KATA_RUNTIME_TEST_CONTAINERDS:-$(ctd_versions "$target/containerd")}
# The oldest and the newest: emulation is slow, and those between are like one of them.
containerds=$(tr : '\n' <<<"$containerds" | sed -n '1p;$p' | uniq | paste -sd :)

# The programs, as the whole test run builds them.
built=$(cargo test --quiet --workspace --no-run --message-format json |
    sed -nE 's/.*"name":"e2e".*"executable":"([^"]+)".*/\1/p')

work=$(mktemp -d /tmp/krv.XXXXXX)
trap 'rm -rf "$work"' EXIT
root=$work/root

# put FILE...: copies programs into the guest, each to the same path, with the libraries that it is linked with.
put() {
    local file
    for file in "$@"; do
        mkdir -p "$root$(dirname "$file")"
        [ -e "$root$file" ] || objcopy --strip-debug "$file" "$root$file" 2>/dev/null || cp -L "$file" "$root$file"
    done
    # A program without any is not an error.
    { ldd "$@" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true; } | sort -u | while read -r file; do
        mkdir -p "$root$(dirname "$file")"
        [ -e "$root$file" ] || cp -L "$file" "$root$file"
    done
}

mkdir -p "$root"/{dev,etc,proc,run,sys,tmp} "$root"/usr/{bin,sbin,lib,lib64} "$root$here/tests"
for link in bin sbin lib lib64; do
    ln -s "usr/$link" "$root/$link"
done
for program in $(busybox --list); do
    ln -s busybox "$root/usr/bin/$program"
done
rm -f "$root"/usr/bin/{bash,busybox,runc}
for program in bash busybox runc tmux; do
    put "$(PATH=$PATH:/usr/sbin command -v "$program")"
done
for bin in ${containerds//:/ }; do
    put "$bin"/{containerd,ctr,containerd-shim-runc-v2}
done
put "$built" "$target"/debug/{kata-runtime,containerd-shim-test-sandbox-v2}
cp -r tests/lib "$root$here/tests/"
# What tmux needs to draw.
mkdir -p "$root/usr/lib/locale" "$root/usr/lib/terminfo"
cp -r /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
cp -r /usr/lib/terminfo/. /lib/terminfo/. "$root/usr/lib/terminfo/" 2>/dev/null || true
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
xz -dc "$kernel"/usr/lib/modules/*/kernel/fs/overlayfs/overlay.ko.xz >"$root/usr/lib/overlay.ko"
ctd_image "$root/busybox.tar"
cp tests/cgroup-v2/init "$root/init"
cat >"$root/run.sh" <<RUN
cd $here
export PATH=${containerds%%:*}:\$PATH KATA_RUNTIME_TEST_CONTAINERDS=$containerds KATA_RUNTIME_TEST_IMAGE=/busybox.tar KATA_RUNTIME_TEST_SKIP_NOTHING=1
$built --include-ignored --nocapture --test-threads 1 ${tests[@]}
RUN

disk=$work/disk
truncate -s 1G "$disk"
mke2fs -q -t ext4 -d "$root" "$disk"

begin=$SECONDS
# The kernel has the driver of this disk built in: there is no initial RAM disk. Nothing on it has to last. On a busy machine
# an emulated timer is late, which the kernel's check of it takes for a broken one.
timeout "${GUEST_SECONDS:-480}" nice qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2G -nodefaults -no-reboot \
    -display none -serial stdio -kernel "$kernel"/boot/vmlinuz-* \
    -append "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off hugepages=8 root=/dev/nvme0n1 rw init=/init" \
    -drive "file=$disk,format=raw,if=none,id=disk,cache=unsafe" -device nvme,drive=disk,serial=disk \
    </dev/null | sed -u 's/\r$//' | tee "$work/said" || true
echo "The guest took $((SECONDS - begin)) s."
grep -q '^tests passed$' "$work/said"
