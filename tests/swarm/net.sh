# For the scripts beside it, which source it: nodes in network namespaces of their own, 10.99.0.1 and so on, each on a link to one
# switch that is shaped to RATE Mbit/s in both directions. DIR is theirs, and all is gone when the script ends.
#
# Takes root and iproute2.
DIR=$(mktemp -d) TAG=hw$$ PIDS=() NODES=()

cleanup() {
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for n in switch "${NODES[@]}"; do ip netns del "$TAG-$n" 2>/dev/null || true; done
    rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

in_ns() { local n=$1; shift; ip netns exec "$TAG-$n" "$@"; }
shape() { in_ns "$1" tc qdisc add dev "$2" root tbf rate "${RATE}mbit" burst 128kb latency 100ms; }

# Makes the switch and this many nodes.
network() {
    ip netns add "$TAG-switch"
    in_ns switch ip link add bridge type bridge
    in_ns switch ip link set bridge up
    for n in $(seq "$1"); do
        NODES+=("$n")
        ip netns add "$TAG-$n"
        in_ns "$n" ip link set lo up
        in_ns "$n" ip link add eth0 type veth peer name "port$n" netns "$TAG-switch"
        in_ns "$n" ip addr add "10.99.0.$n/24" dev eth0
        in_ns "$n" ip link set eth0 up
        in_ns switch ip link set "port$n" master bridge
        in_ns switch ip link set "port$n" up
        shape "$n" eth0
        shape switch "port$n"
    done
}

# Not by in_ns: a function in the background is a shell around it, and that shell would be killed at the end, not the node.
start() { ip netns exec "$TAG-$1" "$BINARY" run --config "$DIR/$1.toml" > "$DIR/$1.log" 2>&1 & PIDS+=($!); }

# Waits until a command that is told the node says yes.
await() {
    local n=$1 deadline=$((SECONDS + 300))
    shift
    until "$@" "$n" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "node $n: $* in vain" >&2; tail -5 "$DIR/$n.log" >&2; exit 1; }
        sleep 0.1
    done
}
published() { in_ns "$1" curl -sfI "http://10.99.0.$1:8080/video.bin"; }
