#!/bin/bash
# What two clients get of a full link when one of them opens MANY connections and the other a single one. In network namespaces, each
# on a link shaped to RATE Mbit/s in both directions, one node publishes an object of SIZE MiB, and both read it.
# Says the rate of each over ten seconds, beginning five seconds after the second came.
#
# Takes root, iproute2, curl and python3. Usage: tests/swarm/fair.sh [BINARY]; FAIR=false shows what it is without sharing.
set -euo pipefail
BINARY=$(realpath "${1:-target/release/headwater}")
SIZE=${SIZE:-512} RATE=${RATE:-100} MANY=${MANY:-16} FAIR=${FAIR:-true}
. "$(dirname "$0")/net.sh"
network 3

mkdir -p "$DIR/content"
head -c "${SIZE}M" /dev/urandom > "$DIR/content/video.bin"
cat > "$DIR/1.toml" <<TOML
[node]
id = "node1"
state = "$DIR/state"
[dns]
listen = []
[resolver]
mode = "off"
[http]
listen = ["10.99.0.1:8080"]
[metrics]
listen = "127.0.0.1:9153"
[link]
capacity = "$RATE Mbit/s"
fair = $FAIR
[[publish]]
dir = "$DIR/content"
TOML

start 1
await 1 published
cat > "$DIR/measure.py" <<'PYTHON'
import subprocess, sys, time
tag, rate, many = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
link = rate * 125_000

def moved(n):
    """Bytes that went to a client."""
    return int(open(f"/sys/class/net/port{n}/statistics/tx_bytes").read())

def view(n):
    return subprocess.Popen(["ip", "netns", "exec", f"{tag}-{n}", "curl", "-s", "-o", "/dev/null", "http://10.99.0.1:8080/video.bin"])

viewers = [view(2) for _ in range(many)]
try:
    time.sleep(3)
    viewers.append(view(3))
    time.sleep(5)
    begun, before = time.monotonic(), [moved(n) for n in (2, 3)]
    time.sleep(10)
    secs = time.monotonic() - begun
    for n, had, what in zip((2, 3), before, (f"client with {many} connections:", "client with 1 connection:")):
        had = (moved(n) - had) / secs
        print(f"{what:<30} {had * 8 / 1e6:.1f} Mbit/s, {100 * had / link:.0f} % of the link")
finally:
    for viewer in viewers:
        viewer.kill()
        viewer.wait()
PYTHON
in_ns switch python3 "$DIR/measure.py" "$TAG" "$RATE" "$MANY"
