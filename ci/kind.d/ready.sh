# Sourced: Docker, kind and kubectl are there, or it is said how to get them. Sets NODEWAY_KIND_IMAGE, the image of a node, and
# NODEWAY_KIND_BASE, what Nodeway's own image is built on, where no registry has them.
local_kind=../shared/kind
export PATH="${NODEWAY_KIND_CACHE:-$HOME/.cache/nodeway-kind}/bin:$PATH"
if [ -x $local_kind/docker-engine ] && [ -z "${NODEWAY_KIND_IMAGE:-}" ]; then
  $local_kind/docker-engine >&2 && $local_kind/node-image >&2
  export NODEWAY_KIND_IMAGE=nodeway/kind-node:v1.36.3 NODEWAY_KIND_BASE=nodeway/kind-root
fi
for program in docker kind kubectl; do
  command -v $program >/dev/null || {
    echo "$program is missing: install Docker, kind 0.33 or newer and kubectl, and name a node image in NODEWAY_KIND_IMAGE if kind's own cannot be pulled" >&2
    exit 1
  }
done
docker info >/dev/null 2>&1 || { echo "no Docker engine answers: start one, and be root or in its group" >&2; exit 1; }
