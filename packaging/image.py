#!/usr/bin/env python3
"""Writes a container image with a static binary and nothing else, as an OCI image layout in a tar archive.

    packaging/image.py NAME:TAG OUT.tar BINARY...

No daemon, builder or registry is needed. One binary makes an image of its architecture, several an image of all of
them. The same input gives the same bytes. `ctr image import`, `skopeo copy oci-archive:OUT.tar …` and `docker load` read it.
"""

import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile

# e_machine of the ELF header, by Go's name of the architecture, which is OCI's.
ARCHITECTURES = {62: "amd64", 183: "arm64", 22: "s390x", 21: "ppc64le"}
PATH = "usr/bin/kata-runtime"
TYPE = "application/vnd.oci.image"


def architecture(binary, path):
    if binary[:4] != b"\x7fELF":
        sys.exit(f"{path} is not an ELF program")
    order = ">" if binary[5] == 2 else "<"
    (machine,) = struct.unpack_from(order + "H", binary, 18)
    if machine not in ARCHITECTURES:
        sys.exit(f"{path}: its architecture has the number {machine}, which is none of {ARCHITECTURES}")
    return ARCHITECTURES[machine]


def tar(entries):
    """An archive of (name, mode, content), where no content means a directory, that depends on nothing else."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for name, mode, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            out.addfile(info, io.BytesIO(content or b""))
    return archive.getvalue()


class Layout:
    def __init__(self):
        self.blobs = {}

    def add(self, kind, content, **more):
        """Stores a blob and returns its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(content), **more}

    def add_json(self, kind, value, **more):
        return self.add(kind, json.dumps(value, sort_keys=True).encode(), **more)

    def image(self, binary, arch, labels):
        """An image of one architecture: its one layer, configuration and manifest."""
        directories = [("usr", 0o755, None), ("usr/bin", 0o755, None)]
        layer = tar(directories + [(PATH, 0o755, binary)])
        config = {
            "architecture": arch,
            "os": "linux",
            # Arguments are those of `monitor`, as kata-monitor's image takes kata-monitor's.
            "config": {"Entrypoint": ["/" + PATH, "monitor"], "Env": ["PATH=/usr/bin"], "User": "0:0", "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": TYPE + ".manifest.v1+json",
            "config": self.add_json(TYPE + ".config.v1+json", config),
            "layers": [self.add(TYPE + ".layer.v1.tar+gzip", gzip.compress(layer, 6, mtime=0))],
            "annotations": labels,
        }
        platform = {"architecture": arch, "os": "linux"}
        return self.add_json(manifest["mediaType"], manifest, platform=platform)

    def write(self, path, index):
        entries = [("blobs", 0o755, None), ("blobs/sha256", 0o755, None)]
        entries += [("blobs/sha256/" + digest, 0o644, content) for digest, content in sorted(self.blobs.items())]
        entries.append(("index.json", 0o644, json.dumps(index, sort_keys=True).encode()))
        entries.append(("oci-layout", 0o644, b'{"imageLayoutVersion":"1.0.0"}'))
        with open(path, "wb") as out:
            out.write(tar(entries))


def main(name, out, *binaries):
    labels = {
        "org.opencontainers.image.title": "kata-runtime",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": "https://github.com/kata-runtime/kata-runtime",
        "org.opencontainers.image.version": name.rsplit(":", 1)[1],
    }
    if commit := os.environ.get("GIT_COMMIT"):
        labels["org.opencontainers.image.revision"] = commit
    layout = Layout()
    manifests = []
    for path in binaries:
        with open(path, "rb") as file:
            binary = file.read()
        manifests.append(layout.image(binary, architecture(binary, path), labels))
    kind = TYPE + ".index.v1+json"
    image = layout.add_json(kind, {"schemaVersion": 2, "mediaType": kind, "manifests": manifests})
    # containerd takes the name from the first of these, other tools the tag from the second.
    image["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
    }
    layout.write(out, {"schemaVersion": 2, "mediaType": kind, "manifests": [image]})


if __name__ == "__main__":
    if len(sys.argv) < 4 or ":" not in sys.argv[1]:
        sys.exit(__doc__)
    main(*sys.argv[1:])
