#!/usr/bin/env bash
# Boots a Debian 12 with systemd as process 1 and tests headwater there as a service.
#
#     cargo build --release && tests/systemd/nspawn.sh [BINARY]
#
# Needs root, and the packages debootstrap and systemd-container. The tree is made once by debootstrap (from the
# mirror that apt uses on this machine) and kept in ${TMPDIR:-/tmp}/headwater-bookworm; each run boots a copy with
# a network of its own. The checks are in inside.sh. Ends with "N passed, N failed"; exit status 1 when one failed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
binary=$(realpath "${1:-$project/target/release/headwater}")
packages=systemd,systemd-sysv,dbus,bind9-dnsutils,curl
tree=${TMPDIR:-/tmp}/headwater-bookworm
boot_limit=${BOOT_LIMIT:-240} # seconds for boot and checks

[ "$(id -u)" = 0 ] || { echo "nspawn.sh: must be run as root" >&2; exit 1; }
[ -x "$binary" ] || { echo "nspawn.sh: $binary: no such binary; cargo build --release" >&2; exit 1; }
for need in debootstrap:debootstrap systemd-nspawn:systemd-container; do
    PATH=$PATH:/usr/sbin command -v "${need%:*}" >/dev/null ||
        { echo "nspawn.sh: ${need%:*} is missing: apt-get install ${need#*:}" >&2; exit 1; }
done

run=$(mktemp -d "${TMPDIR:-/tmp}/headwater-nspawn.XXXXXX")
nspawn=
# Ends the machine by the pid of its nspawn: the first TERM shuts it down, the second kills all that is in it.
end_machine() {
    local turn
    for turn in TERM TERM KILL; do
        for _ in $(seq 50); do
            kill -0 "$nspawn" 2>/dev/null || break 2
            [ -z "$turn" ] || kill "-$turn" "$nspawn" 2>/dev/null || true
            turn=
            sleep 0.1
        done
    done
    wait "$nspawn" || true
    nspawn=
}
# Whatever happens, neither machine nor copy stays.
cleanup() {
    [ -z "$nspawn" ] || end_machine
    rm -rf --one-file-system "$run"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

if [ "$(cat "$tree/.packages" 2>/dev/null)" != "$packages" ]; then
    echo "making $tree"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Identifier: Packages' | head -n 1)
    rm -rf --one-file-system "$tree" "$tree.part"
    # shellcheck disable=SC2086 # no mirror: no argument
    PATH=$PATH:/usr/sbin debootstrap --variant=minbase --include="$packages" bookworm "$tree.part" ${mirror:-} \
        >"$run/debootstrap.log" 2>&1 || { tail -n 20 "$run/debootstrap.log" >&2; exit 1; }
    printf '%s\n' "$packages" >"$tree.part/.packages"
    mv "$tree.part" "$tree"
fi

# Installed as a package would.
root=$run/root
cp -a --reflink=auto "$tree" "$root"
install -D -m 755 "$binary" "$root/usr/bin/headwater"
install -D -m 644 "$project/systemd/headwater.service" "$project/systemd/headwater.socket" \
    -t "$root/usr/lib/systemd/system"
install -D -m 644 "$project/systemd/headwater.sysusers" "$root/usr/lib/sysusers.d/headwater.conf"
install -D -m 644 "$project/config/headwater.toml" "$root/etc/headwater/headwater.toml"
# What the checks put in its place.
mkdir -p "$root/srv/headwater" "$root/results"
install -m 644 "$here/headwater.toml" "$here/cdn.test.zone" -t "$root/results"
head -c 5000000 /dev/urandom >"$root/srv/headwater/video.bin"

# The checks, as a unit of their own; the machine ends with them.
install -m 755 "$here/inside.sh" "$root/results/inside.sh"
cat >"$root/etc/systemd/system/headwater-checks.service" <<'UNIT'
[Unit]
Description=Checks of headwater as a service
After=multi-user.target
SuccessAction=exit
FailureAction=exit

[Service]
Type=oneshot
ExecStart=/results/inside.sh
StandardOutput=file:/results/output
StandardError=inherit
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../headwater-checks.service "$root/etc/systemd/system/multi-user.target.wants/"

systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --console=pipe \
    --directory="$root" --machine="headwater-$$" </dev/null >"$run/console" 2>&1 &
nspawn=$!
deadline=$((SECONDS + boot_limit))
while kill -0 "$nspawn" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.2; done
timed_out=
kill -0 "$nspawn" 2>/dev/null && timed_out=yes
end_machine

output=$root/results/output
[ -s "$output" ] || { echo "nspawn.sh: the machine did not boot:" >&2; tail -n 40 "$run/console" >&2; exit 1; }
cat "$output"
passed=$(grep -c '^ok ' "$output" || true)
failed=$(grep -c '^not ok ' "$output" || true)
if ! grep -q '^end$' "$output"; then
    failed=$((failed + 1))
    echo "not ok - the checks did not come to their end${timed_out:+ within $boot_limit s}"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
