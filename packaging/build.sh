#!/usr/bin/env bash
# Makes what a release consists of, in target/package: a Debian package, a tarball, a container image, the bill of
# materials of the program and the checksums of all of them. Needs Rust, Python 3 and git; builds the tools from crates.io.
. "$(dirname "$0")/lib.sh"

need_cargo cargo-deb "$CARGO_DEB"
need_cargo cargo-cyclonedx "$CARGO_CYCLONEDX"
version=$(version)
triple=$(rustc -vV | sed -n 's/^host: //p')
# Files are dated by the commit, so that the same commit gives the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
GIT_COMMIT=$(git rev-parse HEAD)
export SOURCE_DATE_EPOCH GIT_COMMIT

say "building kata-runtime $version for $triple"
rm -rf "$out"
mkdir -p "$out/man"
cargo build --quiet --release --locked --bin kata-runtime
binary=$target/release/kata-runtime
cargo run --quiet --locked --features man -- __man "$out/man"

# The page that Debian wants in its own format: this version's entry, and where the others are.
{
    echo "kata-runtime ($version-1) unstable; urgency=medium"
    printf '\n  * See https://github.com/kata-runtime/kata-runtime/blob/v%s/CHANGELOG.md\n\n' "$version"
    echo " -- kata-runtime maintainers <kata-runtime@users.noreply.github.com>  $(date -uRd "@$SOURCE_DATE_EPOCH")"
} >"$out/changelog.Debian"
"$tools/bin/cargo-deb" --no-build --quiet --deb-revision "${DEB_REVISION:-1}" --output "$out/" >/dev/null

name=kata-runtime-$version-$triple
mkdir -p "$out/$name"/{man,completions,systemd}
cp "$binary" README.md LICENSE CHANGELOG.md "$out/$name"
cp "$out"/man/*.1 "$out/$name/man"
cp src/complete/kata-runtime.{bash,zsh,fish} "$out/$name/completions"
cp packaging/systemd/* "$out/$name/systemd"
tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" |
    gzip -n9 >"$out/$name.tar.gz"
rm -r "${out:?}/$name"

# What is linked into the binary, and what builds it.
"$tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$triple" \
    --override-filename "$name.cdx"
# The crates of the workspace are named by the directory that they were built in, which is nobody's business.
sed "s|file://$PWD|file://.|g" "$name.cdx.json" >"$out/$name.cdx.json"
# One is written for each crate of the workspace, into its directory.
find . -path ./target -prune -o -name "$name.cdx.json" -exec rm {} +

packaging/image.py "ghcr.io/kata-runtime/kata-runtime:$version" "$out/kata-runtime-$version-image.tar" "$binary"
(cd "$out" && sha256sum -- *.deb *.tar.gz *.tar *.cdx.json >SHA256SUMS)
(cd "$out" && ls -l -- *.deb *.tar.gz *.tar *.cdx.json SHA256SUMS)
