#!/bin/sh
# Install overlayd on any Linux, with or without systemd, from this tree or a wheel. Run again to upgrade.
#
#   deploy/install.sh [SOURCE]     SOURCE: a wheel or source distribution (default: this tree)
#   deploy/install.sh --remove     uninstalls it; state and configuration are kept
#
# Needs root, Python 3.11 or newer with venv, iproute2, and an index for the libraries (pip's settings
# apply, such as PIP_INDEX_URL or PIP_FIND_LINKS). On Debian and Ubuntu, prefer the package: make deb.
# Environment: PYTHON, and DESTDIR to install below a folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=${DESTDIR:-}
prefix=/opt/overlayd
units=/etc/systemd/system
manuals=/usr/local/share/man/man8
bash=/usr/local/share/bash-completion/completions
zsh=/usr/local/share/zsh/site-functions
fish=/usr/share/fish/vendor_completions.d
booted() { [ -z "$to" ] && [ -d /run/systemd/system ]; }
fail() { echo "install.sh: $*" >&2; exit 1; }

if [ "${1:-}" = --remove ]; then
  if booted; then systemctl disable --now overlayd 2>/dev/null || true; fi
  rm -rf "$to$prefix" "$to/usr/local/bin/overlayd" "$to$units/overlayd.service" "$to$manuals/overlayd.8" \
    "$to$bash/overlayd" "$to$zsh/_overlayd" "$to$fish/overlayd.fish"
  if booted; then systemctl daemon-reload; fi
  echo "removed; state and interfaces are kept unless you ran 'overlayd leave' and 'overlayd reset' first" >&2
  exit 0
fi

[ -n "$to" ] || [ "$(id -u)" = 0 ] || fail "must be run as root"
python=${PYTHON:-}
for name in python3 python3.14 python3.13 python3.12 python3.11; do
  [ -n "$python" ] && break
  "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python=$name
done
[ -n "$python" ] || fail "Python 3.11 or newer not found; set PYTHON=..."
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv; install its venv package"
command -v ip >/dev/null || fail "'ip' not found; install iproute2"
command -v nft >/dev/null || echo "install.sh: 'nft' not found; install nftables" >&2

# Build a new environment beside the old one, then rename: a running agent keeps its open files.
rm -rf "$to$prefix.new"
mkdir -p "$to$prefix.new"
"$python" -m venv "$to$prefix.new"
"$to$prefix.new/bin/pip" install --quiet --disable-pip-version-check "${1:-$here/..}"
for script in "$to$prefix.new"/bin/*; do
  [ -L "$script" ] || sed -i "1s|^#!.*|#!$prefix/bin/python -P|" "$script"
done
rm -rf "$to$prefix.old"
if [ -d "$to$prefix" ]; then mv "$to$prefix" "$to$prefix.old"; fi
mv "$to$prefix.new" "$to$prefix"
rm -rf "$to$prefix.old"

overlayd() { "$to$prefix/bin/python" -P -m overlay.cli.main "$@"; }
mkdir -p "$to/usr/local/bin" "$to$units" "$to/etc/overlayd" "$to$manuals" "$to$bash" "$to$zsh" "$to$fish"
ln -sf "$prefix/bin/overlayd" "$to/usr/local/bin/overlayd"
overlayd man > "$to$manuals/overlayd.8"
overlayd completion bash > "$to$bash/overlayd"
overlayd completion zsh > "$to$zsh/_overlayd"
overlayd completion fish > "$to$fish/overlayd.fish"
[ -e "$to/etc/overlayd/overlayd.toml" ] || cp "$here/overlayd.toml" "$to/etc/overlayd/overlayd.toml"
sed 's|/usr/bin/overlayd|/usr/local/bin/overlayd|' "$here/overlayd.service" > "$to$units/overlayd.service"
if [ -z "$to" ]; then
  getent group overlayd >/dev/null || groupadd --system overlayd || addgroup -S overlayd
fi
if booted; then
  systemctl daemon-reload
  systemctl try-restart overlayd
fi
echo "installed $(overlayd version); next: systemctl enable --now overlayd, or overlayd join" >&2
