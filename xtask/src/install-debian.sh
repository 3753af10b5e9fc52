#!/bin/sh
# Installs the packages named as arguments; run as root. No service of theirs starts, now or at the next boot:
# a policy-rc.d that answers 101 forbids it during the installation and is taken away afterwards.
set -eu

policy=/usr/sbin/policy-rc.d
kept=$policy.kept-by-tidegate

restore() {
    rm -f "$policy"
    if [ -e "$kept" ]; then mv "$kept" "$policy"; fi
}
trap restore EXIT
trap 'exit 130' INT TERM HUP

if [ -e "$policy" ] && [ ! -e "$kept" ]; then mv "$policy" "$kept"; fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install --yes --no-install-recommends "$@"

for package in "$@"; do
    # Installing a server switched its service on for the next boot, where it would take a port that others want.
    case "$package" in
    mosquitto | redis-server | rabbitmq-server | nats-server) ;;
    *) continue ;;
    esac
    if command -v systemctl >/dev/null; then
        systemctl disable --quiet "$package.service" || echo "could not disable $package.service" >&2
    fi
done
