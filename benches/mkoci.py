#!/usr/bin/env python3
"""Writes an OCI layout: an index of amd64 and arm64, three layers each.

    mkoci.py gz|zstd IMAGES LAYOUT      layers are IMAGES/ARCH/{base,systemd,config}.tar
"""
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

LAYERS = ("base", "systemd", "config")
PACK = {"gz": ["gzip", "-6", "-n", "-c"], "zstd": ["zstd", "-q", "-3", "-T1", "-c"]}
TYPE = {"gz": "gzip", "zstd": "zstd"}
OCI = "application/vnd.oci.image."


def main(kind, images, layout):
    shutil.rmtree(layout, ignore_errors=True)
    blobs = Path(layout, "blobs/sha256")
    blobs.mkdir(parents=True)

    def put(data, media, **more):
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": OCI + media, "digest": "sha256:" + name, "size": len(data), **more}

    def document(value, media, **more):
        return put(json.dumps(value).encode(), media, **more)

    def image(arch):
        tars = [Path(images, arch, name + ".tar") for name in LAYERS]
        config = {
            "architecture": arch,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(t.read_bytes()).hexdigest() for t in tars]},
            "history": [{"created_by": name} for name in LAYERS],
        }
        platform = {"architecture": arch, "os": "linux"}
        if arch == "arm64":
            config["variant"] = platform["variant"] = "v8"
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": document(config, "config.v1+json"),
            "layers": [
                put(subprocess.run([*PACK[kind], tar], stdout=subprocess.PIPE, check=True).stdout, f"layer.v1.tar+{TYPE[kind]}")
                for tar in tars
            ],
        }
        return document(manifest, "manifest.v1+json", platform=platform)

    index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [image("amd64"), image("arm64")]}
    top = document(index, "index.v1+json", annotations={"org.opencontainers.image.ref.name": kind})
    Path(layout, "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    Path(layout, "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in PACK:
        sys.exit(__doc__)
    main(*sys.argv[1:])
