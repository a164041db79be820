#!/usr/bin/env bash
# A zone of a million names beside NSD: time and processor seconds until the first answer, resident memory, and what a query
# costs in it compared with a zone of ten thousand.
#
#   HEADWATER=target/release/headwater benches/peers/million.sh [-n NAMES] [-k hosts|cuts] [-t SECONDS] [-r ROUNDS] [PEER...]
#
# hosts: one A record a name; cuts: a delegation a name, two NS records each. PEER: headwater, nsd (both by default). Everything is in
# a temporary directory; the servers stand on loopback ports, pinned to core 0, dnsperf to core 1. Needs nsd, dnsperf, dig.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
names=1000000 kind=hosts seconds=5 rounds=3 port=5390
while getopts n:k:t:r: option; do
    case $option in
    n) names=$OPTARG ;; k) kind=$OPTARG ;; t) seconds=$OPTARG ;; r) rounds=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
peers=("$@")
[ ${#peers[@]} -gt 0 ] || peers=(headwater nsd)
for tool in dnsperf dig taskset $(printf '%s\n' "${peers[@]}" | grep -x nsd); do
    command -v "$tool" >/dev/null || { echo "$0: $tool is not installed" >&2; exit 1; }
done
dir=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' INT TERM
tick=$(getconf CLK_TCK)

zone() { # NAMES
    local to=$dir/$1.zone
    {
        printf '$ORIGIN bench.test.\n$TTL 300\n@ SOA ns1 host 1 3600 900 604800 60\n@ NS ns1\nns1 A 192.0.2.1\n'
        awk -v n="$1" -v kind="$kind" 'BEGIN { for (i = 0; i < n; i++)
            if (kind == "hosts") printf "host%d A 198.%d.%d.%d\n", i, 18 + i / 65536, i / 256 % 256, i % 256
            else printf "host%d NS ns%d.dns.example.\nhost%d NS ns%d.dns.example.\n", i, i % 1000, i, (i + 7) % 1000 }'
    } >"$to"
    awk -v n="$1" 'BEGIN { srand(7); for (i = 0; i < 400000; i++) printf "host%d.bench.test A\n", int(rand() * n) }' >"$dir/$1.queries"
}

# The processor seconds of the server and its children, in ticks; the resident and the most resident MiB.
tree() {
    local kid
    echo "$1"
    for kid in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$kid"; done
}
ticks() {
    local pid sum=0
    for pid in $(tree "$server"); do
        sum=$((sum + $(sed 's/^.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 + $14 + $15 }')))
    done
    echo "$sum"
}
memory() { # Pss, so that what forks share counts once
    local pid sum=0
    for pid in $(tree "$server"); do
        sum=$((sum + $(awk '/^Pss:/ { print $2; exit }' "/proc/$pid/smaps_rollup")))
    done
    echo $((sum / 1024))
}
peak() { # of the largest process
    local pid
    for pid in $(tree "$server"); do
        awk '/^VmHWM:/ { print int($2 / 1024) }' "/proc/$pid/status"
    done | sort -n | tail -n 1
}

start_headwater() { # NAMES
    sed -e "s|@DIR@|$dir|; s|@ADDR@|127.0.0.1|; s|@PORT@|$port|; s|@WORKERS@|1|; s|@ZONE@|$dir/$1.zone|" \
        "$here/headwater-auth.toml" >"$dir/headwater.toml"
    taskset -c 0 "${HEADWATER:?the binary}" run --config "$dir/headwater.toml" &
}
start_nsd() { # NAMES
    cat >"$dir/nsd.conf" <<END
server:
	ip-address: 127.0.0.1@$port
	server-count: 1
	username: ""
	chroot: ""
	zonesdir: "$dir"
	pidfile: "$dir/nsd.pid"
	database: ""
	xfrdfile: "$dir/xfrd.state"
	zonelistfile: "$dir/zone.list"
	xfrdir: "$dir"
	minimal-responses: yes
	rrl-ratelimit: 0
	rrl-whitelist-ratelimit: 0
remote-control:
	control-enable: no
zone:
	name: "bench.test"
	zonefile: "$dir/$1.zone"
END
    taskset -c 0 nsd -d -c "$dir/nsd.conf" &
}
stop() {
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
}

# Sets `load` (seconds), `cpu` (ticks), `resident`, `most` (MiB) and `cost` (microseconds a query).
measure() { # PEER NAMES
    local begin before after sent
    begin=$(date +%s%N)
    "start_$1" "$2"
    server=$!
    until dig @127.0.0.1 -p $port +tries=1 +time=20 +norecurse "host$(($2 - 1)).bench.test" A 2>/dev/null | grep -q 'status: NOERROR'; do
        kill -0 "$server" || exit 1
        sleep 0.02
    done
    load=$((($(date +%s%N) - begin) / 1000000))
    cpu=$(ticks)
    sleep 1
    resident=$(memory) most=$(peak)
    taskset -c 1 dnsperf -s 127.0.0.1 -p $port -d "$dir/$2.queries" -l 1 -c 8 -q 200 >/dev/null 2>&1
    before=$(ticks)
    sent=$(taskset -c 1 dnsperf -s 127.0.0.1 -p $port -d "$dir/$2.queries" -l "$seconds" -c 8 -q 200 2>/dev/null |
        awk '/Queries completed/ { print $3 }')
    after=$(ticks)
    cost=$(awk -v t=$((after - before)) -v hz="$tick" -v n="$sent" 'BEGIN { printf "%.3f", t / hz * 1e6 / n }')
    stop
}

zone 10000
zone "$names"
printf '%-10s %9s %9s %9s %9s %9s %12s\n' peer names 'load ms' 'load cpu' 'MiB' 'most MiB' 'us/query'
for ((round = 0; round < rounds; round++)); do
    for peer in "${peers[@]}"; do
        for size in 10000 "$names"; do
            measure "$peer" "$size"
            printf '%-10s %9s %9s %9s %9s %9s %12s\n' "$peer" "$size" "$load" "$((cpu * 1000 / tick))" "$resident" "$most" "$cost" |
                tee -a "$dir/rows"
        done
    done
done

# Medians of the rounds and the two ratios that count.
awk -v n="$names" '
    function median(key, column,   i, j, t, count, v) {
        count = split(rows[key, column], v, " ")
        for (i = 1; i <= count; i++) for (j = i + 1; j <= count; j++) if (v[j] + 0 < v[i] + 0) { t = v[i]; v[i] = v[j]; v[j] = t }
        return v[int((count + 1) / 2)]
    }
    { for (c = 3; c <= 7; c++) rows[$1 " " $2, c] = rows[$1 " " $2, c] " " $c; seen[$1] }
    END {
        for (peer in seen) printf "%s: a query among %d names costs %.2f times one among 10000\n", peer, n, median(peer " " n, 7) / median(peer " 10000", 7)
        if ("nsd" in seen && "headwater" in seen) {
            ours = "headwater " n; theirs = "nsd " n
            printf "headwater beside nsd: load %.2f, its processor time %.2f, memory %.2f, most %.2f\n", median(ours, 3) / median(theirs, 3),
                median(ours, 4) / median(theirs, 4), median(ours, 5) / median(theirs, 5), median(ours, 6) / median(theirs, 6)
        }
    }' "$dir/rows"
