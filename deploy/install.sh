#!/bin/sh
# Install overlayd on any Linux, with or without systemd, from this tree or a wheel. Run again to upgrade.
#
#   deploy/install.sh [SOURCE]     SOURCE: a wheel or source distribution (default: this tree)
#   deploy/install.sh --remove     uninstalls it; state and configuration are kept
#   deploy/install.sh --help       prints this
#
# Needs root, Python 3.11 or newer with venv, iproute2, and an index for the libraries (pip's settings
# apply, such as PIP_INDEX_URL or PIP_FIND_LINKS). The libraries are those of deploy/requirements.lock,
# by their hashes. On Debian and Ubuntu, prefer the package: make deb.
# Environment: PYTHON, and DESTDIR to install below a folder.
set -eu
umask 022
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
usage() { echo "install.sh: $*; see: deploy/install.sh --help" >&2; exit 2; }

# An unknown word must change nothing: the working installation would be replaced.
[ $# -le 1 ] || usage "one SOURCE at most, not $# words"
case ${1:-} in
  --help | -h) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  --remove) ;;
  -*) usage "unknown option $1" ;;
  '') [ $# = 0 ] || usage "SOURCE is empty" ;;
  *) [ -f "$1" ] || [ -f "$1/pyproject.toml" ] || usage "$1 is neither a file nor a source tree" ;;
esac

if [ "${1:-}" = --remove ]; then
  if booted; then systemctl disable --now overlayd 2>/dev/null || true; fi
  if [ -z "$to" ] && [ -x "$prefix/bin/overlayd" ]; then # runtimes would start what is gone
    for plugin in cni netavark docker-plugin; do "$prefix/bin/overlayd" "$plugin" uninstall || true; done
  fi
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
  "$name" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python=$name
done
[ -n "$python" ] || fail "Python 3.11 or newer not found; set PYTHON=..."
"$python" -I -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv; install its venv package"
command -v ip >/dev/null || fail "'ip' not found; install iproute2"
command -v nft >/dev/null || echo "install.sh: 'nft' not found; install nftables" >&2

# Build a new environment beside the old one, then rename: a running agent keeps its open files.
# Python runs isolated (-I): neither the current folder nor PYTHONPATH decides what is imported.
new=$to$prefix.new
put_back() { # also if it ends between the two renames
  [ -d "$to$prefix" ] || [ ! -d "$to$prefix.old" ] || mv "$to$prefix.old" "$to$prefix"
  rm -rf "$new"
}
trap put_back EXIT
rm -rf "$new"
mkdir -p "$new"
"$python" -I -m venv "$new"
pip() { "$new/bin/python" -I -m pip "$@" --quiet --disable-pip-version-check; }
pinned() { pip install --require-hashes --only-binary :all: "$@"; }
pinned -r "$here/requirements.lock"
source=${1:-}
case $source in
  *.whl) ;;
  *) # Built by pinned tools, which are not installed.
    "$python" -I -m venv "$new/build"
    "$new/build/bin/python" -I -m pip install --quiet --disable-pip-version-check \
      --require-hashes --only-binary :all: -r "$here/build.lock"
    "$new/build/bin/python" -I -m pip wheel --quiet --disable-pip-version-check --no-deps \
      --no-build-isolation --wheel-dir "$new/wheel" "${source:-$here/..}"
    rm -rf "$new/build"
    source=$(echo "$new"/wheel/*.whl) ;;
esac
pip install --no-deps "$source"
rm -rf "$new/wheel"
for script in "$new"/bin/*; do
  [ -L "$script" ] || sed -i "1s|^#!.*|#!$prefix/bin/python -I|" "$script"
done
# A version that does not run here must not replace one that does.
version=$("$new/bin/python" -I -m overlay.cli.main version) || fail "the new version does not run; nothing was changed"
case $version in "overlayd "*) ;; *) fail "the new tree is not overlayd; nothing was changed" ;; esac
"$new/bin/python" -I -c 'import overlay.agent.main' || fail "the new agent does not load; nothing was changed"
rm -rf "$to$prefix.old"
if [ -d "$to$prefix" ]; then mv "$to$prefix" "$to$prefix.old"; fi
mv "$new" "$to$prefix"
rm -rf "$to$prefix.old"

overlayd() { "$to$prefix/bin/python" -I -m overlay.cli.main "$@"; }
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
