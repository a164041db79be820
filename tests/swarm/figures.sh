#!/bin/bash
# Four nodes in network namespaces, each on a link shaped to RATE in both directions: one publishes an object of SIZE MiB,
# three mirror it. Says what the origin sent, as a multiple of the object, and how long it took until all had it, as a
# multiple of one copy over one link. With LIAR=1 a fourth node says that it holds everything and sends wrong bytes. DISCOVER says
# how they find each other, by that way alone: static, tracker, lan or dht (their own; none of them sees another network). With KEY=1
# the mirrors are told the origin's key and not where it is (lan and dht).
#
# Takes root, iproute2, curl and python3. Usage: tests/swarm/figures.sh [BINARY]
set -euo pipefail
BINARY=$(realpath "${1:-target/release/headwater}")
SIZE=${SIZE:-256} RATE=${RATE:-100} LIAR=${LIAR:-0} KEY=${KEY:-0} DISCOVER=${DISCOVER:-static}
. "$(dirname "$0")/net.sh"
network 5

mkdir -p "$DIR/content"
head -c "${SIZE}M" /dev/urandom > "$DIR/content/video.bin"
SUM=$(sha256sum < "$DIR/content/video.bin")
OTHERS='"http://10.99.0.2:8080", "http://10.99.0.3:8080", "http://10.99.0.4:8080"'
[ "$LIAR" = 0 ] || OTHERS+=', "http://10.99.0.5:8080"'
# The secret keeps the liar out where there is one, and it is to be let in.
SECRET=
[ "$LIAR" != 0 ] || { head -c 32 /dev/urandom | base64 > "$DIR/peers.key"; SECRET="$DIR/peers.key"; }
for n in 1 2 3 4; do
    # Node 2 is the first of the DHT.
    first='"10.99.0.2:6881"'
    [ $n != 2 ] || first=
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
[peers]
secret_file = "$SECRET"
discover = ["$DISCOVER"]
static = [$OTHERS]
dht_bootstrap = [$first]
dht_serve = true
dht_interval = "5s"
$role
TOML
done

metric() { in_ns "$1" curl -s http://127.0.0.1:9153/metrics | awk -v m="$2" 'index($0, m " ") == 1 || index($0, m "{") == 1 { sum += $NF } END { print sum + 0 }'; }
whole() { [ "$(metric "$1" 'headwater_replication_objects{prefix="/",state="whole"}')" = 1 ]; }
now() { date +%s.%N; }

if [ "$LIAR" != 0 ]; then
    # It claims every chunk of whatever it is asked about, and sends zeros.
    ip netns exec "$TAG-5" python3 - "$SIZE" <<'PYTHON' > /dev/null 2>&1 &
import http.server, json, re, sys, urllib.parse
count = int(sys.argv[1])
bits = ((1 << count) - 1).to_bytes((count + 7) // 8, "little").hex()
class Liar(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        ids = re.findall("[0-9a-f]{64}", self.path)
        if "/have?" in self.path:
            said = [dict(manifest=i, published=False, pages=[[0, bits]], coming=[]) for i in ids]
            body = json.dumps(dict(node=666, objects=said)).encode()
        else:
            body = bytes(1 << 20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("10.99.0.5", 8080), Liar).serve_forever()
PYTHON
    PIDS+=($!)
fi

start 1
await 1 published
if [ "$KEY" != 0 ]; then
    key=$(in_ns 1 "$BINARY" status --json --socket "$DIR/state1/admin.sock" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])')
    sed -i "s|^from = .*|key = \"$key\"|" "$DIR"/[234].toml
fi
begin=$(now)
in_ns 5 curl -s -o /dev/null http://10.99.0.1:8080/video.bin
one=$(echo "$(now) - $begin" | bc)
begin=$(now)
for n in 2 3 4; do start $n; done
for n in 2 3 4; do await $n whole; done
all=$(echo "$(now) - $begin" | bc)
sent=$(metric 1 'headwater_replication_bytes_total{direction="out",source="origin"}')
for n in 2 3 4; do
    [ "$(in_ns $n curl -s "http://10.99.0.$n:8080/video.bin" | sha256sum)" = "$SUM" ] || { echo "node $n: wrong bytes"; exit 1; }
    echo "node $n: wasted$(for why in wrong broken late; do
        echo -n " $(metric $n "headwater_replication_wasted_bytes_total{why=\"$why\"}") B $why,"; done)" \
        "put aside $(metric $n headwater_replication_sources_put_aside_total)," \
        "found $(metric $n "headwater_peers_known{way=\"$DISCOVER\"}")," \
        "had $(metric $n 'headwater_replication_bytes_total{direction="in",source="origin"}') B from the origin," \
        "$(metric $n 'headwater_replication_bytes_total{direction="in",source="peer"}') B from others"
done
echo "one copy over one link: $one s"
echo "three mirrors whole:    $all s, $(echo "scale=2; $all / $one" | bc) x"
echo "the origin sent:        $sent B, $(echo "scale=2; $sent / ($SIZE * 1048576)" | bc) x"
