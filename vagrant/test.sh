#!/usr/bin/env bash
# Test with real virtual machines (Vagrant and libvirt, emulated without KVM): create and join them, ping
# across, reboot one and ping again, halt one and see it declared dead, destroy all.
#
#   vagrant/test.sh       as root; the output is kept in build/vagrant/test.log
#
# Environment: OVERLAYD_NODES (2), OVERLAYD_MTU, OVERLAYD_IPV6, OVERLAYD_DRIVER (qemu, or kvm).
set -euo pipefail
cd "$(dirname "$0")/.."
box=$PWD/build/vagrant
if [ "${OVERLAYD_TEST_INSIDE:-}" != 1 ]; then
  vagrant/host.sh
  vagrant/box.sh "$box"
  OVERLAYD_PACKAGE=$PWD/$(deploy/deb/build.sh 2>/dev/null)
  export OVERLAYD_PACKAGE OVERLAYD_TEST_INSIDE=1
  # The machines of an interrupted run ended with their libvirtd; remove its files.
  rm -rf "$box/libvirt" "$box/dot" "$box/home"
  nice -n 10 vagrant/libvirt.sh "$box/libvirt" "$PWD/vagrant/test.sh" 2>&1 | tee "$box/test.log"
  exit "${PIPESTATUS[0]}"
fi

export VAGRANT_CWD=$PWD/vagrant VAGRANT_HOME=$box/home VAGRANT_DOTFILE_PATH=$box/dot
export VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_CHECKPOINT_DISABLE=1
export VAGRANT_DISABLE_STRICT_DEPENDENCY_ENFORCEMENT=1 # Debian's Ruby libraries are newer than required
export OVERLAYD_NODES=${OVERLAYD_NODES:-2} OVERLAYD_BOX=$box/lab.box OVERLAYD_MEMORY=${OVERLAYD_MEMORY:-640}
export OVERLAYD_DRIVER=${OVERLAYD_DRIVER:-qemu} OVERLAYD_KERNEL=$box/vmlinuz OVERLAYD_INITRD=$box/initrd
last=vm$OVERLAYD_NODES

step() { printf '\n### %s  %s\n' "$(date -u +%H:%M:%S)" "$*"; }
run() { # a vagrant command, without its progress bars
  echo "\$ vagrant $*"
  vagrant "$@" 2>&1 </dev/null | sed -u 's/\r/\n/g' | grep --line-buffered -v -e 'Progress: ' -e '^ *vm[0-9]*: *$' || return "${PIPESTATUS[0]}"
  return "${PIPESTATUS[0]}"
}
on() { # MACHINE COMMAND: run it there as root
  echo "$1\$ $2"
  vagrant ssh "$1" -c "sudo sh -c '$2' 2>&1" 2>/dev/null </dev/null | tr -d '\r'
  return "${PIPESTATUS[0]}"
}
eventually() { # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/tmp/eventually.log 2>&1; do
    [ $SECONDS -lt $deadline ] || { cat /tmp/eventually.log; echo "FAILED: $*"; exit 1; }
    sleep 3
  done
  cat /tmp/eventually.log
}
seen_dead() {
  local members
  members=$(on vm1 "overlayd members")
  echo "$members"
  grep -qE "^$last .*dead" <<< "$members"
}

trap 'code=$?; [ $code = 0 ] || { echo "FAILED (exit $code)"; run destroy -f || true; }' EXIT

step "versions"
echo "$(. /etc/os-release; echo "$PRETTY_NAME"), kernel $(uname -r), $(nproc) cores, $OVERLAYD_DRIVER"
dpkg-query -W -f '${Package} ${Version}\n' vagrant vagrant-libvirt libvirt-daemon qemu-system-x86
echo "$(basename "$OVERLAYD_PACKAGE"), $OVERLAYD_NODES machines of $OVERLAYD_MEMORY MiB${OVERLAYD_MTU:+, underlay MTU $OVERLAYD_MTU}${OVERLAYD_IPV6:+, IPv6 underlay}"

step "up: boot, install, join, attach, ping"
started=$SECONDS
run up
echo "(up took $((SECONDS - started)) s)"
on "$last" ". /etc/os-release; echo \$PRETTY_NAME, kernel \$(uname -r); systemctl is-active overlayd docker; cat /etc/machine-id"
on vm1 "cat /etc/machine-id; overlayd status"
on vm1 "overlayd endpoint ls; overlayd verify"
on vm1 "overlayd-demo exec c1 ping -c 3 -W 5 c$OVERLAYD_NODES"
# Under systemd, too, the host must see the names that the agent creates in /run/netns.
on vm1 "overlayd container add bare --network blue && ip netns list && ip netns exec bare ping -c 2 -W 5 c$OVERLAYD_NODES"
on vm1 "systemctl reload overlayd && systemctl show overlayd -p Type -p NRestarts -p ActiveState -p CapabilityBoundingSet"

step "upgrade under a series of pings"
on vm1 "ip netns exec bare ping -q -i 0.2 -w 90 \$(overlayd-demo address c$OVERLAYD_NODES) > /run/ping.log & dpkg -i /tmp/overlayd.deb >/dev/null; overlayd status | head -n 2; wait; cat /run/ping.log"
on vm1 "grep -q \" 0% packet loss\" /run/ping.log && overlayd container rm bare"

step "provisioning again changes nothing"
run provision "$last" --provision-with shell
on "$last" "overlayd endpoint ls"

step "reboot $last"
on "$last" "systemctl reboot" || true
# Until the shutdown ssh may still answer, so wait for a short uptime.
eventually 900 on "$last" "test \$(cut -d. -f1 /proc/uptime) -lt 300 && systemctl is-active overlayd-demo && cut -d. -f1 /proc/uptime"
eventually 300 on "$last" "overlayd-demo exec c$OVERLAYD_NODES ping -c 3 -W 5 c1"
eventually 300 on vm1 "overlayd-demo exec c1 ping -c 3 -W 5 c$OVERLAYD_NODES"
on vm1 "overlayd members"

step "halt $last, seen from vm1"
run halt "$last"
eventually 300 seen_dead
on vm1 "overlayd status | tail -n 3"

step "destroy"
run destroy -f
virsh -c qemu:///system list --all --name | grep . && exit 1
step "passed in $SECONDS s"
