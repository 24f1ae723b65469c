#!/usr/bin/env bash
# Builds the committed state twice, in two directories with target directories of their own, and compares the programs byte
# by byte. Needs Rust, and time: two whole release builds, four minutes on two idle cores. Registry and compiler are this
# machine's: on another, paths in the program may differ.
#
#   packaging/reproducible.sh [COMMIT]     HEAD is the default
. "$(dirname "$0")/lib.sh"

commit=$(git rev-parse --verify "${1:-HEAD}^{commit}")
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH
# What a person has set for their own builds is not part of the answer.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET_DIR

work=$(mktemp -d "${TMPDIR:-/tmp}/kata-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Names of different lengths, so that a path that gets into the program shows.
for name in one another-directory; do
    # A checkout of git's, since the program has its commit in it.
    git clone --quiet --shared --no-checkout . "$work/$name"
    git -C "$work/$name" checkout --quiet --detach "$commit"
    say "building ${commit:0:12} in $work/$name"
    (cd "$work/$name" && CARGO_TARGET_DIR=$work/$name/target cargo build --quiet --release --locked --bin kata-runtime)
    cp "$work/$name/target/release/kata-runtime" "$work/$name.program"
    # Two target directories at once would take 3 GB.
    rm -rf "${work:?}/$name"
done

sha256sum "$work"/*.program | sed "s#$work/##"
if cmp -s "$work/one.program" "$work/another-directory.program"; then
    say "the same bytes twice"
    exit 0
fi
say "the programs differ in $(cmp -l "$work/one.program" "$work/another-directory.program" 2>/dev/null | wc -l) bytes"
for name in one another-directory; do
    say "paths of $name in it:"
    grep -aoE "$work[[:print:]]*" "$work/$name.program" | sort | uniq -c | head -n 10 || true
done
exit 1
