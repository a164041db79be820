#!/bin/bash
# Runs inside the machine that nspawn.sh boots: one line per check, "ok - …" or "not ok - …", then "end".
set -u

# check NAME COMMAND…: the command's success is the result; its output is shown when it fails.
check() {
    local name=$1 shown
    shift
    if shown=$("$@" 2>&1); then
        echo "ok - $name"
    else
        echo "not ok - $name"
        tail -n 8 <<<"$shown" | sed 's/^/#   /'
        journalctl --unit=headwater.service --lines=8 --no-pager --output=cat | sed 's/^/#   | /'
    fi
}

# within SECONDS COMMAND…: asks until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

# is PROPERTY VALUE: what systemd says of the service.
is() {
    local found
    found=$(systemctl show --property="$1" --value headwater.service)
    [ "$found" = "$2" ] || { echo "$1=$found, expected $2"; return 1; }
}

serial_is() { [ "$(dig +short +tries=1 +time=2 @"${2:-127.0.0.1}" cdn.test SOA | cut -d ' ' -f 3)" = "$1" ]; }
answers() {
    local answer
    answer=$(dig +tries=1 +time=5 @127.0.0.1 video.cdn.test A "$@")
    grep -q 'flags: qr aa' <<<"$answer" && grep -q '192\.0\.2\.1$' <<<"$answer" || { echo "$answer"; return 1; }
}
serves() { curl -fsS --max-time 5 -o /tmp/video.bin http://127.0.0.1/video.bin && cmp /tmp/video.bin /srv/headwater/video.bin; }
metric() { curl -fsS --max-time 5 http://127.0.0.1:9153/metrics | grep -q "^$1"; }
silent() {
    local shown
    shown=$("$@" 2>&1) && [ -z "$shown" ] || { echo "$shown"; return 1; }
}
fails() { ! "$@"; }
pid() { systemctl show --property=MainPID --value headwater.service; }
unit=headwater.service

# The unit itself.
systemctl --version | head -n 1 | sed "s/^/# /"
check "verify finds nothing to say" silent systemd-analyze verify $unit headwater.socket
check "exposure is at most 1.5" systemd-analyze security --no-pager --threshold=15 $unit
systemd-analyze security --no-pager $unit | tail -n 1 | sed 's/^/# /'
check "the user exists" id headwater

# As packaged.
check "starts with the packaged configuration" systemctl start $unit
check "with it, the control socket is found" headwater status
systemctl stop $unit
cp /results/headwater.toml /results/cdn.test.zone /etc/headwater/

# Start: active when everything answers, at the first try.
check "starts" systemctl start $unit
check "is active once started" is ActiveState active
check "dig is answered over UDP" answers
check "dig is answered over TCP" answers +tcp
check "dig is answered over IPv6" serial_is 2026010101 ::1
check "curl gets the published bytes" within 10 serves
check "metrics are served" metric headwater_build_info
check "links are measured inside the sandbox" metric headwater_link_receive_bytes_total
check "runs as headwater, not as root" test "$(stat -c %U "/proc/$(pid)")" = headwater
check "state is the service's own" test "$(stat -c %U:%a /var/lib/headwater)" = headwater:750
check "status is told over the control socket" headwater status

# Reload.
sed -i 's/2026010101/2026010102/; s/\(video *A *192\.0\.2\.\).*/\11/' /etc/headwater/cdn.test.zone
before=$(pid)
check "reload succeeds" systemctl reload $unit
check "reload serves the new serial" within 5 serial_is 2026010102
check "reload keeps the process" test "$(pid)" = "$before"
cp /etc/headwater/headwater.toml /tmp/good.toml
echo 'nonsense = 1' >>/etc/headwater/headwater.toml
check "reload refuses a faulty configuration" fails systemctl reload $unit
check "the running configuration stays" answers
cp /tmp/good.toml /etc/headwater/headwater.toml
check "reload succeeds again" systemctl reload $unit

# Crash.
kill -KILL "$(pid)"
restarted() { is NRestarts 1 && is ActiveState active && [ "$(pid)" != "$before" ]; }
check "killed, it runs again" within 20 restarted
check "killed, it answers again" answers
check "killed, it serves again" within 10 serves

# Watchdog: half of WatchdogSec is the daemon's own pace.
fed() { [ "$(systemctl show -p WatchdogTimestampMonotonic --value $unit)" -gt "$fed_at" ]; }
fed_at=$(systemctl show -p WatchdogTimestampMonotonic --value $unit)
check "the watchdog is fed" within 30 fed

# Stop.
check "stops" systemctl stop $unit
check "stops cleanly" is Result success
check "stops with status 0" is ExecMainStatus 0
check "is inactive once stopped" is ActiveState inactive

# A faulty configuration never becomes active.
echo 'nonsense = 1' >>/etc/headwater/headwater.toml
check "does not start with a faulty configuration" fails systemctl start $unit
systemctl stop $unit
systemctl reset-failed $unit 2>/dev/null
cp /tmp/good.toml /etc/headwater/headwater.toml

# Socket activation: the first query starts the daemon and is answered.
check "sockets start" systemctl start headwater.socket
check "sockets alone start no daemon" is ActiveState inactive
check "the first query starts it and is answered" answers
check "the daemon started by its socket is active" within 10 is ActiveState active
check "over TCP too" answers +tcp
check "over HTTP too" within 10 serves
check "with sockets, stops" systemctl stop headwater.socket $unit
check "with sockets, stops cleanly" is Result success

# Enabled, it would start at boot.
check "can be enabled" systemctl enable $unit

echo end
