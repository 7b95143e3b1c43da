#!/bin/bash
# An image's layers by the stock tools, one after the other: curl, pigz or zstd, tar. Nothing is checked and no whiteout is understood, so it is
# no peer but a measure of what the tools take.
#
#   benches/pipe.sh REGISTRY/NAME TAG ARCH DIR
set -euo pipefail
url=http://${1%%/*}/v2/${1#*/} tag=$2 arch=$3 dir=$4
json() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(*eval(sys.argv[1]))' "$1"; }
manifest=$(curl -sf -H 'Accept: application/vnd.oci.image.index.v1+json' "$url/manifests/$tag" |
    json "[m['digest'] for m in d['manifests'] if m['platform']['architecture'] == '$arch'][:1]")
layers=$(curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' "$url/manifests/$manifest" | json "[l['digest'] for l in d['layers']]")
case $tag in zstd*) unpack="zstd -dcq" ;; *) unpack="pigz -dc" ;; esac
mkdir -p "$dir"
for layer in $layers; do
    curl -sf "$url/blobs/$layer" | $unpack | tar -C "$dir" --numeric-owner -xpf -
done
