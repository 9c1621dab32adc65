# Sourced: a kind cluster of three nodes that has the image nodeway:$tag, and goes when the script ends, whatever came of it.
# `make_cluster NAME TAG [keep]` makes it; it wants `say`. A script that defines `tell_failure` is asked when it fails.
# Sets name, work (a folder that goes too) and KUBECONFIG.
# shellcheck source=ci/kind.d/ready.sh
. ci/kind.d/ready.sh
work=$(mktemp -d)
export KUBECONFIG=$work/kubeconfig
failed=0

# shellcheck disable=SC2317
end_cluster() {
  status=$?
  if [ $status != 0 ] && [ -n "${name:-}" ]; then
    kubectl get pods -A -o wide >&2 || true
    ! declare -F tell_failure >/dev/null || tell_failure >&2 || true
  fi
  if [ -n "${keep:-}" ] && [ -n "${name:-}" ]; then
    say "the cluster stays: KUBECONFIG=$KUBECONFIG, kind delete cluster --name $name"
  else
    [ -z "${name:-}" ] || kind delete cluster --name "$name" >&2 || true
    rm -rf "$work"
  fi
  exit $status
}
trap end_cluster EXIT

make_cluster() {
  say "building the image nodeway:$2"
  ci/image --build "$2"
  keep=${3:-}
  name=$1
  say "making the cluster $name"
  kind create cluster --name "$name" ${NODEWAY_KIND_IMAGE:+--image "$NODEWAY_KIND_IMAGE"} --config live/deploy/kind.yaml --wait 180s >&2
  kind load docker-image "nodeway:$2" --name "$name" >&2
}

# The article's client and servers, in the image.
bookinfo() { sed "s/IMAGE/nodeway:$1/" ci/kind.d/bookinfo.yaml; }

# A node that runs pods, and its address.
worker() { kubectl get nodes -l '!node-role.kubernetes.io/control-plane' -o jsonpath='{.items[0].metadata.name}'; }
address_of() { kubectl get node "$1" -o jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}'; }

# What a node's kernel has of rules, routes, pins and sets; routes of pods come and go with them. What stays of files is
# /run/nodeway/envoy/last, the number of Envoys that there were.
kernel() {
  docker exec "$1" sh -c 'for tables in iptables-save ip6tables-save; do $tables | grep -i -e nodeway || true; done
    ip rule; ip -6 rule; ip route show table all type local | grep -v -e " 127\." -e ::1 -e " dev veth"
    ls /sys/fs/bpf | grep nodeway || true'
  # Not every node image has ipset.
  nsenter --net="/proc/$(docker inspect --format '{{.State.Pid}}' "$1")/ns/net" ipset list -name | grep nodeway || true
}

agents() { kubectl -n nodeway-system get pods -l app=nodeway-agent -o name; }
# What one agent's container runs: on_agent AGENT COMMAND...
on_agent() { local agent=$1; shift; kubectl -n nodeway-system exec "$agent" -c agent -- "$@"; }
in_sync() { for agent in $(agents); do on_agent "$agent" nodeway status || return 1; done; }
# Until the Service of the article's Ingress is there and every agent is on its plan, a minute at most.
await_sync() {
  for _ in $(seq 60); do
    kubectl get service cilium-ingress-basic-ingress >/dev/null 2>&1 && in_sync >/dev/null 2>&1 && break
    sleep 1
  done
}

# row NAME SAID COMMAND...: a line of the outcome; with the command's last words if it fails.
row() {
  local name=$1 said=$2; shift 2
  if "$@" >"$work/row" 2>&1; then printf ' ✓  %-33s %s\n' "$name" "$said"; else
    printf ' ✗  %-33s not: %s\n%s\n' "$name" "$said" "$(tail -20 "$work/row")"; failed=1
  fi
}
# by_envoy SAID COMMAND...: a request that is answered so, by way of Envoy.
by_envoy() {
  local said=$1 answer; shift
  answer=$("$@" 2>&1 | tr -d '\r') || true
  echo "$answer"; grep -q "^server: envoy" <<<"$answer" && grep -qx "$said" <<<"$answer"
}
curl=(curl --silent --include --max-time 5)
