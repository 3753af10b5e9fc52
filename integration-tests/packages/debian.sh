#!/bin/sh
# Installs, upgrades, removes and purges the Debian package in a root of its own: the machine's, with a layer in memory above it
# that is gone with this process, as are its network and its processes. Run as root:
#   unshare --mount --net --pid --fork debian.sh PACKAGE
# Every step says what it shows; the first that fails ends it.
set -eu

package=$1
root=/mnt
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

shows() { echo "shows: $*"; }
fails() { echo "FAILS: $*" >&2; exit 1; }
# is WHAT FOUND WANTED
is() { [ "$2" = "$3" ] || fails "$1 is \"$2\", not \"$3\""; }
inside() { chroot "$root" "$@"; }
# The version, with the configuration that it ships.
make() {
    rm -rf "$root/tmp/unpacked"
    dpkg-deb --raw-extract "$package" "$root/tmp/unpacked"
    sed -i "s/^Version: .*/Version: $1/" "$root/tmp/unpacked/DEBIAN/control"
    echo "# shipped with $1" >>"$root/tmp/unpacked/etc/tidegate/tidegate.toml"
    (cd "$root/tmp/unpacked" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb --root-owner-group -Znone --build "$root/tmp/unpacked" "$root/tmp/$1.deb" >/dev/null
    rm -rf "$root/tmp/unpacked"
}
# install VERSION ARGUMENT…
install() {
    version=$1
    shift
    inside dpkg "$@" --install "/tmp/$version.deb" >"$root/tmp/log" 2>&1 || { cat "$root/tmp/log" >&2; fails "installing $version"; }
}
start() {
    # Not by `inside`: the process that is signalled is the one.
    chroot "$root" setpriv --reuid tidegate --regid tidegate --init-groups /usr/bin/tidegate serve --config /etc/tidegate/tidegate.toml \
        >"$root/tmp/serve" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        if inside tidegate health --data-dir /var/lib/tidegate >/dev/null 2>&1; then return; fi
        kill -0 $server 2>/dev/null || { cat "$root/tmp/serve" >&2; fails "it ended"; }
        sleep 0.1
    done
    cat "$root/tmp/serve" >&2
    fails "it isn't ready"
}
stop() {
    kill -TERM $server
    wait $server || fails "it ended with $?"
}

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs "$root"
mkdir "$root/above" "$root/work" "$root/all"
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/above,workdir=$root/work" "$root/all"
root=$root/all
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
ip link set lo up
# Machines that are meant to be small leave documentation out.
rm -rf "$root"/etc/dpkg/dpkg.cfg.d
make 0.1.0-1
make 0.2.0-1
make 0.3.0-1

install 0.1.0-1
user=$(inside getent passwd tidegate) || fails "there is no user"
is "the user's home" "$(echo "$user" | cut -d: -f6)" /var/lib/tidegate
is "the user's shell" "$(echo "$user" | cut -d: -f7)" /usr/sbin/nologin
shows "a user of its own, which nobody logs in as"

mode() { inside stat -c '%U:%G %a' "$1"; }
is "the data directory" "$(mode /var/lib/tidegate)" "tidegate:tidegate 700"
is "the folder of the configuration" "$(mode /etc/tidegate)" "root:tidegate 750"
is "the configuration" "$(mode /etc/tidegate/tidegate.toml)" "root:tidegate 640"
is "the folder of rules" "$(mode /etc/tidegate/rules.d)" "root:tidegate 750"
is "the binary" "$(mode /usr/bin/tidegate)" "root:root 755"
is "the unit" "$(mode /lib/systemd/system/tidegate.service)" "root:root 644"
for file in /usr/share/bash-completion/completions/tidegate /usr/share/zsh/vendor-completions/_tidegate \
    /usr/share/fish/vendor_completions.d/tidegate.fish /usr/share/man/man1/tidegate.1.gz \
    /usr/share/doc/tidegate/copyright /usr/share/doc/tidegate/configuration.md /usr/share/doc/tidegate/examples/tidegate.toml; do
    [ -s "$root$file" ] || fails "$file is missing"
done
inside dpkg --verify tidegate || fails "files differ from the package's"
is "the conffiles" "$(inside dpkg-query -W -f '${Conffiles}' tidegate | awk '{print $1}' | sort | xargs)" \
    "/etc/tidegate/conf.d/README /etc/tidegate/rules.d/README /etc/tidegate/tidegate.toml"
[ -L "$root/etc/systemd/system/multi-user.target.wants/tidegate.service" ] || fails "the unit isn't enabled"
shows "files with their owners and modes, and the unit enabled"

start
mosquitto_pub -h 127.0.0.1 -p 1883 -q 1 -r -t kept -m before
inside setpriv --reuid nobody --regid nogroup --clear-groups cat /etc/tidegate/tidegate.toml >/dev/null 2>&1 && fails "anybody reads the configuration"
inside setpriv --reuid nobody --regid nogroup --clear-groups ls /var/lib/tidegate >/dev/null 2>&1 && fails "anybody reads the data"
is "what root sees" "$(inside tidegate retained list --data-dir /var/lib/tidegate | grep -c kept)" 1
stop
grep -E 'WARN|ERROR' "$root/tmp/serve" && fails "a start as installed warns"
shows "it runs as its user with the configuration as installed, and warns of nothing"

install 0.2.0-1
is "the version" "$(inside dpkg-query -W -f '${Version}' tidegate)" 0.2.0-1
grep -q '# shipped with 0.2.0-1' "$root/etc/tidegate/tidegate.toml" || fails "a configuration that nobody changed isn't the new one"
is "the configuration" "$(mode /etc/tidegate/tidegate.toml)" "root:tidegate 640"
start
is "the message" "$(mosquitto_sub -h 127.0.0.1 -p 1883 -t kept -C 1 -W 10)" before
stop
shows "an upgrade keeps the data, and takes the new configuration where nobody changed the old one"

echo '# mine' >>"$root/etc/tidegate/tidegate.toml"
printf "[rules.mine]\nsql = \"SELECT * FROM 'a'\"\n[[rules.mine.actions]]\nname = 'b'\ntype = 'republish'\ntopic = 'b'\n" >"$root/etc/tidegate/rules.d/mine.toml"
chmod 0600 "$root/etc/tidegate/tidegate.toml"
inside chown tidegate /etc/tidegate/tidegate.toml
install 0.3.0-1 --force-confold
is "the version" "$(inside dpkg-query -W -f '${Version}' tidegate)" 0.3.0-1
grep -q '# mine' "$root/etc/tidegate/tidegate.toml" || fails "a changed configuration is gone"
is "the configuration" "$(mode /etc/tidegate/tidegate.toml)" "tidegate:tidegate 600"
[ -e "$root/etc/tidegate/tidegate.toml.dpkg-dist" ] || fails "the new configuration isn't beside the changed one"
[ -e "$root/etc/tidegate/rules.d/mine.toml" ] || fails "a rule is gone"
start
is "the message" "$(mosquitto_sub -h 127.0.0.1 -p 1883 -t kept -C 1 -W 10)" before
stop
shows "an upgrade keeps a configuration that was changed, its mode, and rules"

inside dpkg --remove tidegate >/dev/null 2>&1 || fails "removing"
[ -e "$root/usr/bin/tidegate" ] && fails "the binary is still there"
[ -e "$root/var/lib/tidegate/store" ] || fails "removing took the data"
grep -q '# mine' "$root/etc/tidegate/tidegate.toml" || fails "removing took the configuration"
[ -e "$root/etc/tidegate/rules.d/mine.toml" ] || fails "removing took a rule"
shows "removing keeps data, configuration and rules"

install 0.3.0-1 --force-confold
start
is "the message" "$(mosquitto_sub -h 127.0.0.1 -p 1883 -t kept -C 1 -W 10)" before
stop
shows "installed again, it goes on where it was"

inside dpkg --purge tidegate >/dev/null 2>&1 || fails "purging"
[ -e "$root/var/lib/tidegate" ] && fails "purging left data"
[ -e "$root/etc/tidegate" ] && fails "purging left configuration"
inside getent passwd tidegate >/dev/null || fails "purging took the user"
[ -e "$root/etc/systemd/system/multi-user.target.wants/tidegate.service" ] && fails "purging left the unit enabled"
shows "purging leaves the user alone"
echo done
