#!/usr/bin/env bash
# Run a command with a private libvirtd, in separate network, mount and process namespaces with a
# separate /run. The machine's links, rules and libvirt stay unchanged, and all ends with the command.
#
#   vagrant/libvirt.sh FOLDER COMMAND...      FOLDER has its configuration and disks
set -euo pipefail
folder=$1
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ "${OVERLAYD_INSIDE:-}" != 1 ]; then
  exec env OVERLAYD_INSIDE=1 unshare --pid --fork --kill-child --mount-proc --net --mount \
    --propagation private "$0" "$folder" "$@"
fi
unset OVERLAYD_INSIDE
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/lock /run/libvirt "$folder"/{etc,lib,log,cache}
cp -a /etc/libvirt/. "$folder/etc/"
# Root without security labels and cgroups, which also works without systemd and in containers.
cat > "$folder/etc/qemu.conf" <<'CONF'
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
CONF
rm -f "$folder"/etc/qemu/networks/autostart/*
for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
  mkdir -p "${pair#*:}"
  mount --bind "$folder/${pair%%:*}" "${pair#*:}"
done
ip link set lo up
virtlogd -d
libvirtd -d
for _ in $(seq 300); do
  virsh -c qemu:///system list >/dev/null 2>&1 && exec "$@"
  sleep 0.2
done
echo "libvirt.sh: libvirtd did not answer within 60 s; see $folder/log" >&2
exit 1
