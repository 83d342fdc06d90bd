#!/usr/bin/env bash
# Build the Debian package of this tree with dpkg-deb, which every Debian has; does not need root.
#
#   deploy/deb/build.sh [FOLDER]     prints the package's path (FOLDER: default build)
#
# The package contains everything except the interpreter. It needs the Python version of the machine
# that built it, so build it on the target distribution. Environment: PYTHON (/usr/bin/python3), TOOLS
# (any Python with pip and hatchling; .venv, or build/build-tools), DEB_VERSION (the program's version, then -1),
# ARCHITECTURE (this machine's; also amd64 or arm64 from any: nothing is compiled).
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build}
python=${PYTHON:-/usr/bin/python3}
version=${DEB_VERSION:-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' overlay/__init__.py)-1}
here=$(dpkg --print-architecture)
architecture=${ARCHITECTURE:-$here}
case $architecture in
  "$here") ;;
  amd64) export MACHINE=x86_64 ;;
  arm64) export MACHINE=aarch64 ;;
  *) echo "build.sh: ARCHITECTURE $architecture is neither this machine's ($here) nor amd64 or arm64" >&2; exit 2 ;;
esac
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

mkdir -p "$out"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
umask 022

PYTHON=$python deploy/stage.sh "$stage"
minor=$("$python" -I -c 'import sys; print(sys.version_info.minor)')
# The state format that this version can read, for preinst.
format=$(sed -n 's/^FORMAT_VERSION = \([0-9]*\).*/\1/p' overlay/agent/state/state_file.py)
mkdir "$stage/DEBIAN"
for script in preinst postinst prerm postrm; do
  sed "s/@FORMAT@/$format/" "deploy/deb/$script" > "$stage/DEBIAN/$script"
  chmod 755 "$stage/DEBIAN/$script"
done
echo /etc/overlayd/overlayd.toml > "$stage/DEBIAN/conffiles"
(cd "$stage" && find opt usr -type f -print0 | sort -z | xargs -0 md5sum) > "$stage/DEBIAN/md5sums"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" \
  -e "s/@MINOR@/$minor/" -e "s/@NEXT@/$((minor + 1))/" \
  -e "s/@SIZE@/$(du -sk "$stage" | cut -f1)/" deploy/deb/control > "$stage/DEBIAN/control"
package=$out/overlayd_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$stage" "$package.new" >&2
mv "$package.new" "$package"
echo "$package"
