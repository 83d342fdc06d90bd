#!/usr/bin/env bash
# Make this machine node NUMBER of NODES: package, cluster, network, container. Can be run again.
#
#   provision.sh NUMBER NODES      (environment: OVERLAYD_MTU, OVERLAYD_IPV6)
set -euo pipefail
number=$1 nodes=$2
export DEBIAN_FRONTEND=noninteractive
say() { echo "vm$number: $*"; }
# Emulated machines are slow: every wait is long, but limited.
wait_for() { # SECONDS WHAT COMMAND...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/tmp/overlayd-wait.log 2>&1; do
    [ $SECONDS -lt $deadline ] || { say "timed out waiting for $what:"; cat /tmp/overlayd-wait.log; exit 1; }
    sleep 2
  done
}
online() { timeout 30 apt-get -qq update >/dev/null 2>&1; }

# --- a unique machine id: clones of one disk must not have the same --------------------------------
if [ ! -e /var/lib/overlayd-machine-id-made ]; then
  rm -f /etc/machine-id /var/lib/dbus/machine-id
  systemd-machine-id-setup
  systemctl restart systemd-journald # its files are named by machine-id
  touch /var/lib/overlayd-machine-id-made
fi

# --- the underlay, at every boot ------------------------------------------------------------------
address=192.168.56.$((10 + number)) first=192.168.56.11
interface=$(ip -o -4 address show to "$address" | awk '{print $2}')
[ -n "$interface" ] || { say "no interface has $address"; exit 1; }
if [ "${OVERLAYD_IPV6:-}" = 1 ]; then
  address=fd56::$((10 + number)) first=fd56::11
fi
cat > /etc/systemd/system/overlayd-underlay.service <<UNIT
[Unit]
Description=Underlay of the overlayd lab
After=network-online.target
Wants=network-online.target
Before=overlayd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip link set dev $interface mtu ${OVERLAYD_MTU:-1500}
ExecStart=-/usr/sbin/ip -6 address replace fd56::$((10 + number))/64 dev $interface nodad
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl -q enable overlayd-underlay.service
systemctl restart overlayd-underlay.service

# --- the package ----------------------------------------------------------------------------------
if [ ! -e /tmp/overlayd.deb ] && [ -d /overlayd ]; then
  say "building the package from the tree"
  online && apt-get -qq install -y python3-venv git >/dev/null
  python3 -m venv /tmp/overlayd-tools && /tmp/overlayd-tools/bin/pip install -q --require-hashes -r /overlayd/deploy/build.lock
  cp "$(cd /overlayd && TOOLS=/tmp/overlayd-tools/bin/python deploy/deb/build.sh /tmp/overlayd-deb)" /tmp/overlayd.deb
fi
if ! dpkg-query -W -f '${Depends}' overlayd >/dev/null 2>&1; then
  depends=$(dpkg-deb -f /tmp/overlayd.deb Depends)
  say "installing $(dpkg-deb -f /tmp/overlayd.deb Package Version | tr '\n' ' ')($depends)"
  dpkg -s iproute2 nftables python3 >/dev/null 2>&1 || { online && apt-get -qq install -y iproute2 nftables python3 >/dev/null; }
fi
dpkg -i /tmp/overlayd.deb
systemctl -q enable --now overlayd.service

# --- the cluster ----------------------------------------------------------------------------------
install -m 600 /tmp/overlayd-key /root/overlayd-key
if [ "$number" = 1 ]; then
  # This key can only print the token.
  install -d -m 700 /root/.ssh
  grep -qs overlayd-vagrant /root/.ssh/authorized_keys ||
    echo "command=\"overlayd token show\",restrict $(cat /tmp/overlayd-key.pub)" >> /root/.ssh/authorized_keys
  overlayd join --underlay "$address"
  overlayd network inspect blue >/dev/null 2>&1 || overlayd network create blue --subnet 10.32.0.0/16
else
  install -d -m 700 /etc/overlayd
  token() { ssh -i /root/overlayd-key -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=10 \
    root@192.168.56.11 > /etc/overlayd/token.new && [ -s /etc/overlayd/token.new ]; }
  umask 077
  wait_for 900 "vm1's token" token
  mv /etc/overlayd/token.new /etc/overlayd/token
  umask 022
  overlayd join "$first" --underlay "$address" --token-file /etc/overlayd/token
  wait_for 300 "network blue" overlayd network inspect blue
fi

# --- a container, at every boot -------------------------------------------------------------------
command -v docker >/dev/null || { online && apt-get -qq install -y docker.io busybox-static >/dev/null; } || true
install -m 755 /tmp/overlayd-demo /usr/local/sbin/overlayd-demo
cat > /etc/systemd/system/overlayd-demo.service <<UNIT
[Unit]
Description=Container c$number on network blue
After=overlayd.service docker.service
Wants=overlayd.service docker.service
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=15min
ExecStart=/usr/local/sbin/overlayd-demo start c$number
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl -q enable overlayd-demo.service
systemctl restart overlayd-demo.service || { journalctl -u overlayd-demo -u overlayd -o cat --no-pager | tail -n 20; exit 1; }

# --- pings to all others, from the last machine ----------------------------------------------------
[ "$number" = "$nodes" ] || exit 0
overlayd members
for other in $(seq $((nodes - 1))); do
  wait_for 900 "an answer from c$other" overlayd-demo exec "c$number" ping -c 1 -W 5 "c$other"
  overlayd-demo exec "c$number" ping -c 3 -W 5 "c$other"
done
cat <<TEXT

The containers c1 ... c$nodes on vm1 ... vm$nodes reach each other by name. Try next:
  vagrant ssh vm1 -c 'sudo overlayd status'
  vagrant ssh vm1 -c 'sudo overlayd endpoint ls'
  vagrant ssh vm1 -c 'sudo overlayd-demo exec c1 ping -c 3 c$nodes'
  vagrant halt vm$nodes; vagrant ssh vm1 -c 'sudo overlayd members'      (dead within seconds)
  vagrant ssh vm1 -c 'sudo overlayd attach TARGET --network blue'  (your own container or process)
TEXT
