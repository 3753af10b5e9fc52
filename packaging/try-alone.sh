#!/bin/sh
# Runs a static binary as an image FROM scratch would: alone in a root that is read-only, as a user without rights, with one folder
# that it may write to. Run as root, in namespaces of its own:
#   unshare --mount --net --pid --fork try-alone.sh BINARY CONFIG
# It publishes a message, stops by SIGTERM, starts again, and finds the message.
set -eu

binary=$1
config=$2
root=/mnt
user=65534
PATH=/usr/sbin:/usr/bin:/sbin:/bin

fails() { echo "FAILS: $*" >&2; exit 1; }
# The binary, in the root and as the user.
alone() { chroot --userspec=$user:$user --groups= "$root" /usr/bin/tidegate "$@"; }

case $(ldd "$binary" 2>&1) in
*"statically linked"* | *"not a dynamic executable"*) ;;
*) fails "the binary isn't static" ;;
esac

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs "$root"
mkdir -p "$root/usr/bin" "$root/etc/tidegate" "$root/var/lib/tidegate"
cp "$binary" "$root/usr/bin/tidegate"
cp "$config" "$root/etc/tidegate/tidegate.toml"
mount -t tmpfs -o "uid=$user,gid=$user,mode=0700" tmpfs "$root/var/lib/tidegate"
mount -o remount,ro,bind "$root"
ip link set lo up
touch "$root/file" 2>/dev/null && fails "the root can be written to"

export TIDEGATE_CONFIG=/etc/tidegate/tidegate.toml
start() {
    # No function: the process that is signalled is the one.
    chroot --userspec=$user:$user --groups= "$root" /usr/bin/tidegate serve &
    server=$!
    for _ in $(seq 600); do
        if alone health >/dev/null 2>&1; then return; fi
        kill -0 $server || fails "it ended"
        sleep 0.1
    done
    fails "it isn't ready"
}

start
alone pub -h 127.0.0.1 -t kept -m before -q 1 -r
[ "$(awk '/^(Uid|CapEff)/ { print $2 }' /proc/$server/status | xargs)" = "$user 0000000000000000" ] || fails "it has rights"
kill -TERM $server
wait $server || fails "it ended with $?"
start
received=$(alone sub -h 127.0.0.1 -t kept -C 1 -W 10)
[ "$received" = before ] || fails "\"$received\" came"
if [ "${3-}" ]; then
    # How much memory it takes when there is nothing to do, alone and with one client.
    sleep "$3"
    grep -E '^(VmRSS|RssAnon|RssFile)' "/proc/$server/status"
    grep -E '^Pss:' "/proc/$server/smaps_rollup"
    chroot --userspec=$user:$user --groups= "$root" /usr/bin/tidegate sub -h 127.0.0.1 -t quiet &
    client=$!
    sleep "$3"
    echo "with one client:"
    grep -E '^(VmRSS|RssAnon|RssFile)' "/proc/$server/status"
    grep -E '^Pss:' "/proc/$server/smaps_rollup"
    kill $client
fi
kill -TERM $server
wait $server || fails "it ended with $?"
echo "alone in a read-only root as user $user: started, published to, stopped, started again, message there, stopped"
