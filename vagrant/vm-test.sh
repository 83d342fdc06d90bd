#!/usr/bin/env bash
# Run tests in one emulated machine with Debian's kernel, which has modules that slim kernels lack:
# netem, ipvlan, vlan, wireguard. Needs root to build the box; uses no service and no network.
#
#   vagrant/vm-test.sh [PYTEST-ARGUMENT...]      (default: -m 'vm or kernels', of the files that have such)
#   vagrant/vm-test.sh --run SCRIPT [ARGUMENT...]     a Python script of this tree instead, such as a benchmark
#
# Environment: ACCEL (tcg, or kvm), MEMORY (1024), SECONDS_MAX (3600), FILES (of this tree that are needed besides).
set -euo pipefail
cd "$(dirname "$0")/.."
box=build/vagrant
vagrant/host.sh
vagrant/box.sh "$box"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mapfile -t testing < <(sed -n 's/^  "\(pytest[^"]*\|hypothesis[^"]*\|schemathesis[^"]*\)".*/\1/p' pyproject.toml)
deploy/environment.sh "$stage" /srv/overlayd-tests "${testing[@]}"
mkdir "$stage/tree"
cp "$(command -v wireguard-go)" "$stage/" # beside the kernel's: clusters may mix them
cp -a pyproject.toml Makefile README.md overlay tests docs deploy scripts vagrant "$stage/tree/"
for file in ${FILES:-}; do cp -a --parents "$file" "$stage/tree/"; done
find "$stage/tree" -name __pycache__ -prune -exec rm -rf {} +
# Compiled here: in the emulated machine the first agent would spend much of its time to start on it.
/usr/bin/python3 -I -m compileall -q "$stage"/tree/{overlay,tests}
if [ $# = 0 ]; then
  mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.(vm|kernels)\b' tests)
  set -- -m 'vm or kernels' "${files[@]}"
fi
environment=()
if [ "$1" = --run ]; then
  shift
  environment=(PYTHONPATH=/mnt/tree) # scripts import each other as `scripts.X`
else
  environment=(OVERLAYD_VM=1 OVERLAYD_RECORD=vm "OVERLAYD_RECORD_TITLE=\`make vm-test\`")
  set -- -m pytest --color=no -p no:cacheprovider --timeout=1200 "$@"
fi
printf '%q ' env "${environment[@]}" /srv/overlayd-tests/bin/python "$@" > "$stage/command"
# Emulated, a lab of three hosts takes minutes to come up: a test may take longer than elsewhere.
# systemd in the machine starts this script; its output goes to the serial line.
cat > "$stage/run" <<'INSIDE'
#!/bin/bash
exec >/dev/ttyS0 2>&1
stty -F /dev/ttyS0 -onlcr 2>/dev/null
mkdir -p /srv/overlayd-tests
mount --bind /mnt/srv/overlayd-tests /srv/overlayd-tests
ip link set lo up
ulimit -n 65536 # tests open thousands of sockets, and systemd allows a service 1024
cp /mnt/wireguard-go /usr/local/sbin/
touch /etc/resolv.conf # there is no DHCP, and `ip netns exec` mounts files only over existing ones
echo "vm-test: $(. /etc/os-release; echo "$PRETTY_NAME"), kernel $(uname -r), $(python3 --version)"
cd /mnt/tree
eval "$(cat /mnt/command)"
code=$?
[ ! -e build/platforms/vm.json ] || echo "vm-test: record $(tr -d '\n' < build/platforms/vm.json)"
echo "vm-test: exit $code"
INSIDE
chmod +x "$stage/run"
disk=$box/tests.raw
rm -f "$disk"
truncate -s $(($(du -sm "$stage" | cut -f1) * 3 / 2 + 64))M "$disk"
mkfs.ext4 -q -F -d "$stage" "$disk"

# no_timer_check: Linux would consider a delayed emulated timer broken, and panic.
log=$box/vm-test.log
nice -n 10 timeout "${SECONDS_MAX:-3600}" qemu-system-x86_64 -accel "${ACCEL:-tcg}" -smp 2 -m "${MEMORY:-1024}" \
  -display none -no-reboot -nic none -snapshot -serial stdio -monitor none \
  -object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng \
  -kernel "$box/vmlinuz" -initrd "$box/initrd" \
  -drive "file=$box/box.img,if=virtio" -drive "file=$disk,if=virtio,format=raw" \
  -append 'root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 no_timer_check panic=-1 systemd.show_status=no systemd.run="/usr/bin/mount /dev/vdb /mnt" systemd.run="/mnt/run" systemd.run_success_action=poweroff-force systemd.run_failure_action=poweroff-force' \
  < /dev/null | tee "$log"
rm -f "$disk"
mkdir -p build/platforms
! grep -q '^vm-test: record ' "$log" || sed -n 's/^vm-test: record //p' "$log" > build/platforms/vm.json
grep -q '^vm-test: exit 0' "$log" || { echo "vm-test: failed, or nothing ran; the output is in $log" >&2; exit 1; }
