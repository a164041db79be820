#!/bin/bash
# What a viewer gets of a full link while nodes replicate over it. In network namespaces, each on a link shaped to RATE Mbit/s in
# both directions, one node publishes an object of SIZE MiB, a second one mirrors it, and a viewer reads it at the first.
# Says the viewer's rate alone and beside the replication, how long replication took to be down to its share (SHARE) after
# the viewer's first bytes came, and what it takes of the link while nobody views.
#
# Takes root, iproute2, curl and python3. Usage: tests/swarm/budget.sh [BINARY]; SHARE=1 shows what it is without yielding.
set -euo pipefail
BINARY=$(realpath "${1:-target/release/headwater}")
SIZE=${SIZE:-512} RATE=${RATE:-100} SHARE=${SHARE:-0.3}
. "$(dirname "$0")/net.sh"
network 3

mkdir -p "$DIR/content"
head -c "${SIZE}M" /dev/urandom > "$DIR/content/video.bin"
for n in 1 2; do
    role="[[mirror]]
from = [\"http://10.99.0.1:8080\"]
interval = \"500ms\""
    [ $n != 1 ] || role="[[publish]]
dir = \"$DIR/content\""
    cat > "$DIR/$n.toml" <<TOML
[node]
id = "node$n"
state = "$DIR/state$n"
[dns]
listen = []
[resolver]
mode = "off"
[http]
listen = ["10.99.0.$n:8080"]
[metrics]
listen = "127.0.0.1:9153"
[link]
capacity = "$RATE Mbit/s"
background_share = $SHARE
$role
TOML
done

start 1
await 1 published
cat > "$DIR/measure.py" <<'PYTHON'
import subprocess, sys, time
tag, binary, config, rate, share = sys.argv[1:6]
link, share = float(rate) * 125_000, float(share)

def moved(n):
    """Bytes that went to a node."""
    return int(open(f"/sys/class/net/port{n}/statistics/tx_bytes").read())

def over(secs, n):
    begun, before = time.monotonic(), moved(n)
    time.sleep(secs)
    return (moved(n) - before) / (time.monotonic() - begun)

def view():
    return subprocess.Popen(["ip", "netns", "exec", f"{tag}-3", "curl", "-s", "-o", "/dev/null", "http://10.99.0.1:8080/video.bin"])

def percent(rate):
    return f"{rate * 8 / 1e6:.1f} Mbit/s, {100 * rate / link:.0f} % of the link"

viewer = view()
time.sleep(1)
alone = over(5, 3)
viewer.kill(); viewer.wait()
mirror = subprocess.Popen(["ip", "netns", "exec", f"{tag}-2", binary, "run", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    deadline = time.monotonic() + 60
    while over(0.5, 2) < link / 2:
        assert time.monotonic() < deadline, "no replication"
    time.sleep(1)
    print(f"replication, nobody views:   {percent(over(5, 2))}")
    before = moved(3)
    viewer = view()
    while moved(3) - before < 10_000:
        time.sleep(0.001)
    # Every 10 ms, what went to the mirror so far.
    begun, samples = time.monotonic(), []
    while time.monotonic() - begun < 6:
        samples.append((time.monotonic() - begun, moved(2), moved(3)))
        time.sleep(0.01)
    def pace(at, column):
        """Over the 100 ms from this sample on."""
        end = next(s for s in samples if s[0] >= samples[at][0] + 0.1)
        return (end[column] - samples[at][column]) / (end[0] - samples[at][0])
    usable = [i for i, s in enumerate(samples) if s[0] < 5.8]
    down = next((samples[i][0] for i in usable if pace(i, 1) <= 1.15 * share * link), None)
    said = "never" if down is None else f"{1000 * down:.0f} ms after the viewer's first bytes"
    late = [s for s in samples if s[0] >= 1]
    secs = late[-1][0] - late[0][0]
    beside, mirrored = ((late[-1][c] - late[0][c]) / secs for c in (2, 1))
    print(f"replication at its share:    {said}")
    print(f"viewer alone:                {percent(alone)}")
    print(f"viewer beside replication:   {percent(beside)}; replication {percent(mirrored)}")
    viewer.kill(); viewer.wait()
    gone = time.monotonic()
    while over(0.1, 2) < 0.85 * link:
        assert time.monotonic() < gone + 20, "replication does not come back"
    print(f"replication has the link:    {1000 * (time.monotonic() - gone):.0f} ms after the viewer went away")
finally:
    mirror.terminate(); mirror.wait()
PYTHON
in_ns switch python3 "$DIR/measure.py" "$TAG" "$BINARY" "$DIR/2.toml" "$RATE" "$SHARE"
