#!/usr/bin/env bash
# Build an RPM package of this tree with rpmbuild; does not need root.
#
#   deploy/rpm/build.sh [FOLDER]     prints the package's path (FOLDER: default build)
#
# The package contains everything except the interpreter, and needs the Python version of PYTHON: build it on
# the distribution it is for. Environment: PYTHON (/usr/bin/python3; python3.11 or newer), TOOLS
# (any Python with pip and hatchling; .venv, or build/build-tools), RPM_RELEASE (1).
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build}
python=${PYTHON:-/usr/bin/python3}
command -v rpmbuild >/dev/null || {
  echo "rpm: 'rpmbuild' not found; install rpm-build (on Debian and Ubuntu: rpm)" >&2
  exit 1
}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' overlay/__init__.py)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
mkdir "$work/stage"
PYTHON=$python deploy/stage.sh "$work/stage"
mv "$work/stage/usr/share/zsh/vendor-completions" "$work/stage/usr/share/zsh/site-functions"

format=$(sed -n 's/^FORMAT_VERSION = \([0-9]*\).*/\1/p' overlay/agent/state/state_file.py)
body() { sed -e 1d -e "s/@FORMAT@/$format/" -e 's/%/%%/g' "deploy/deb/$1"; }
sed -e "s/@VERSION@/$version/" -e "s/@RELEASE@/${RPM_RELEASE:-1}/" -e "s|@STAGE@|$work/stage|" \
  -e "s/@MINOR@/$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')/" deploy/rpm/overlayd.spec |
  while IFS= read -r line; do
    case $line in
      @PREINST@ | @POSTINST@ | @PRERM@) script=${line//@/}; body "${script,,}" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done > "$work/overlayd.spec"
rpmbuild --quiet -bb --define "_topdir $work/top" --buildroot "$work/root" "$work/overlayd.spec" >&2
package=$(echo "$work"/top/RPMS/*/overlayd-*.rpm)
mv "$package" "$out/"
echo "$out/$(basename "$package")"
