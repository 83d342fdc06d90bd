#!/usr/bin/env bash
# Install Vagrant and its libvirt provider from Debian's packages, without starting a service.
set -euo pipefail
needs=(vagrant:vagrant libvirtd:libvirt-daemon virsh:libvirt-clients qemu-system-x86_64:qemu-system-x86
  qemu-img:qemu-utils debootstrap:debootstrap dnsmasq:dnsmasq-base mkfs.ext4:e2fsprogs cpio:cpio)
missing=()
for need in "${needs[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -d /usr/share/rubygems-integration/all/gems ] &&
  compgen -G '/usr/share/rubygems-integration/all/gems/vagrant-libvirt-*' >/dev/null || missing+=(vagrant-libvirt)
[ -e /etc/libvirt/qemu.conf ] || missing+=(libvirt-daemon-system libvirt-daemon-driver-qemu)
[ ${#missing[@]} -gt 0 ] || exit 0
echo "host.sh: installing Debian packages: ${missing[*]}" >&2
made=""
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && made=1
fi
trap '[ -z "$made" ] || rm -f /usr/sbin/policy-rc.d' EXIT
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
