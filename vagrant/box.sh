#!/usr/bin/env bash
# Build a Vagrant box of Debian from Debian's packages, for machines without access to a box catalogue.
#
#   vagrant/box.sh [FOLDER]      writes lab.box, vmlinuz and initrd (default: build/vagrant)
#
# Debian's cloud kernel is booted directly: the disk is one ext4 file system without a boot loader.
# The account is Vagrant's usual one: `vagrant`, its well-known key, sudo without a password. Never connect
# such a machine to a network that others can reach.
# Environment: SUITE (bookworm), MIRROR, SIZE (3G, sparse), EXTRA (more packages, separated by commas).
# An existing box with the same settings is kept; delete it to build it again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../build/vagrant}
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
size=${SIZE:-3G}
# The packages of a plain server, the dependencies of overlayd's package, and Docker with a static
# busybox, so that containers can be started without a registry.
packages=systemd-sysv,dbus,udev,kmod,openssh-server,sudo,ifupdown,isc-dhcp-client,iproute2,iputils-ping
packages+=,nftables,iptables,netbase,ca-certificates,less,procps,tcpdump,rsync,linux-image-cloud-amd64
packages+=,python3,docker.io,apparmor,busybox-static,wireguard-tools,systemd-container${EXTRA:+,$EXTRA}
# Vagrant's well-known public key; `vagrant up` replaces it by a key of the machine.
key=$(cat /usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub /opt/vagrant/embedded/gems/gems/vagrant-*/keys/vagrant.pub 2>/dev/null | head -n 1 || true)

recipe="$(sha256sum < "$0") $suite $mirror $size ${EXTRA:-}"
if [ -e "$out/lab.box" ] && [ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ]; then exit 0; fi
[ "$(id -u)" = 0 ] || { echo "box.sh: debootstrap needs root" >&2; exit 1; }
for tool in debootstrap mkfs.ext4 qemu-img tar; do
  command -v "$tool" >/dev/null || { echo "box.sh: $tool not found; run vagrant/host.sh first" >&2; exit 1; }
done
[ -n "$key" ] || { echo "box.sh: Vagrant's public key not found; run vagrant/host.sh first" >&2; exit 1; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
root=$out/root
rm -rf "$root"
trap 'rm -rf "$root" "$out/disk.raw"' EXIT

say() { echo "box: $*" >&2; }

say "debootstrap $suite from $mirror"
debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$out/debootstrap.log" 2>&1 ||
  { tail -n 20 "$out/debootstrap.log" >&2; exit 1; }

say "accounts, network, boot"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
inside useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/vagrant"
chmod 0440 "$root/etc/sudoers.d/vagrant"
install -d -m 700 "$root/home/vagrant/.ssh"
echo "$key" > "$root/home/vagrant/.ssh/authorized_keys"
chmod 600 "$root/home/vagrant/.ssh/authorized_keys"
inside chown -R vagrant:vagrant /home/vagrant
printf 'UseDNS no\nGSSAPIAuthentication no\n' > "$root/etc/ssh/sshd_config.d/vagrant.conf"
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' > "$root/etc/network/interfaces"
echo lab > "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' > "$root/etc/hosts"
echo '/dev/vda / ext4 defaults,noatime 0 1' > "$root/etc/fstab"
echo "deb $mirror $suite main" > "$root/etc/apt/sources.list"
# These must be unique: an empty machine-id is filled at the first boot, and ssh host keys in the image
# would be shared by all machines.
: > "$root/etc/machine-id"
rm -f "$root/etc/ssh/ssh_host_"*
cat > "$root/etc/systemd/system/ssh-keys.service" <<'UNIT'
[Unit]
Description=Generate SSH host keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
[Install]
WantedBy=multi-user.target
UNIT
inside systemctl -q enable ssh-keys.service serial-getty@ttyS0.service
# Emulated machines are slow: disable periodic jobs.
inside systemctl -q mask apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer fstrim.timer \
  systemd-networkd-wait-online.service
printf 'virtio_pci\nvirtio_blk\nvirtio_net\nvirtio_rng\n' >> "$root/etc/initramfs-tools/modules"
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' "$root/etc/initramfs-tools/initramfs.conf"
echo ext4 >> "$root/etc/initramfs-tools/modules"
inside update-initramfs -u >>"$out/debootstrap.log" 2>&1
inside apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,info}/* "$root/etc/resolv.conf"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"

say "disk"
rm -f "$out/disk.raw" "$out/box.img"
truncate -s "$size" "$out/disk.raw"
mkfs.ext4 -q -F -L lab -d "$root" "$out/disk.raw"
qemu-img convert -f raw -O qcow2 "$out/disk.raw" "$out/box.img"
gibibytes=$((($(stat -c %s "$out/disk.raw") + (1 << 30) - 1) >> 30))
echo "{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": $gibibytes}" > "$out/metadata.json"
echo 'Vagrant.configure("2") { |config| config.ssh.username = "vagrant" }' > "$out/Vagrantfile.box"
say "lab.box"
tar -C "$out" --transform 's/Vagrantfile.box/Vagrantfile/' -cf - metadata.json Vagrantfile.box box.img | gzip -1 > "$out/lab.box.new"
mv "$out/lab.box.new" "$out/lab.box"
echo "$recipe" > "$out/recipe"
rm -f "$out/metadata.json" "$out/Vagrantfile.box"
say "$(du -h "$out/lab.box" | cut -f1) $out/lab.box, kernel $(basename "$root"/boot/vmlinuz-*)"
