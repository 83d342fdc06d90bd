#!/usr/bin/env bash
# Create, inside the folder STAGE, a self-contained Python environment to be installed at PREFIX.
#
#   deploy/environment.sh STAGE PREFIX [REQUIREMENT...]
#
# It has this tree, the libraries of deploy/requirements.lock, which pip checks by their hashes, and
# the further REQUIREMENTs, in the versions of requirements-dev.lock.
# Only the interpreter, PYTHON (default /usr/bin/python3), is the target's, which must have the same
# minor version. Bytecode is compiled in advance and never checked against the sources, so nothing is
# written into PREFIX, and a package manager can remove all that it installed.
# The libraries are fetched into build/wheels-* once, and again when a lock changes or after
# `make clean`, so that a package can be rebuilt without a network.
# Environment: PYTHON, TOOLS, and MACHINE, as `uname -m` has it, if it is for another kind of machine than this:
# its libraries only have to be unpacked here.
set -euo pipefail
umask 022
here=$(dirname "$0")
lock=$here/requirements.lock
stage=$1 prefix=$2
shift 2
python=${PYTHON:-/usr/bin/python3}
tools=${TOOLS:-.venv/bin/python}
if [ -z "${TOOLS:-}" ] && ! "$tools" -I -c 'import hatchling, pip' 2>/dev/null; then
  # A clone without the developers' environment: what builds, and nothing else.
  tools=build/build-tools/bin/python
  if ! "$tools" -I -c 'import hatchling' 2>/dev/null; then
    "$python" -I -m venv build/build-tools
    "$tools" -I -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/build.lock"
  fi
fi

"$python" -I -m venv --without-pip --symlinks "$stage$prefix"
pip() { "$tools" -I -m pip --python "$stage$prefix/bin/python" --quiet --disable-pip-version-check "$@"; }
minor=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheels=build/wheels-$minor${MACHINE:+-$MACHINE}-$( { echo "$*"; cat "$lock"; [ $# = 0 ] || cat "$here/../requirements-dev.lock"; } | sha256sum | cut -c 1-8)
foreign=()
if [ -n "${MACHINE:-}" ]; then
  foreign=(--python-version "$minor" --implementation cp --abi "cp${minor/./}" --abi abi3 --abi none --only-binary :all:)
  # Debian 12 has glibc 2.36.
  for libc in manylinux_2_36 manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux2014; do
    foreign+=(--platform "${libc}_$MACHINE")
  done
fi
if [ ! -e "$wheels/complete" ]; then
  # Wheels of earlier locks are as good as an index: the hashes decide.
  links=()
  for known in build/wheels-*/; do [ ! -d "$known" ] || links+=(--find-links "$known"); done
  mkdir -p "$wheels.new"
  fetch() { pip download --only-binary :all: "${foreign[@]}" --dest "$wheels.new" "${links[@]}" "$@"; }
  pinned=(--no-deps --require-hashes -r "$lock")
  fetch --no-index "${pinned[@]}" 2>/dev/null || fetch "${pinned[@]}"
  [ $# = 0 ] || fetch --find-links "$wheels.new" -c "$here/../requirements-dev.lock" "$@"
  rm -rf "$wheels"
  mv "$wheels.new" "$wheels"
  touch "$wheels/complete"
fi
offline=(--no-index --find-links "$wheels" --no-compile --no-warn-script-location --root-user-action=ignore)
libraries=()
[ -z "${MACHINE:-}" ] || libraries=("${foreign[@]}" --target "$stage$prefix/lib/python$minor/site-packages")
pip install "${offline[@]}" "${libraries[@]}" --no-deps --require-hashes -r "$lock"
[ $# = 0 ] || pip install "${offline[@]}" "${libraries[@]}" "$@"
[ -z "${MACHINE:-}" ] || rm -rf "$stage$prefix/lib/python$minor/site-packages/bin"
# The tree itself, in its current state.
"$tools" -I -m hatchling build -t wheel -d "$stage/wheel" >/dev/null 2>&1
pip install "${offline[@]}" --no-deps "$stage"/wheel/*.whl
rm -r "$stage/wheel"
rm -rf "$stage$prefix"/bin/[Aa]ctivate* "$stage$prefix/lib64"
printf 'home = %s\ninclude-system-site-packages = false\nversion = %s\n' \
  "$(dirname "$(readlink -f "$python")")" "$("$python" -I -c 'import platform; print(platform.python_version())')" \
  > "$stage$prefix/pyvenv.cfg"
# pip wrote the staging paths; replace them by PREFIX.
for script in "$stage$prefix"/bin/*; do
  [ -L "$script" ] || sed -i "1s|^#!.*|#!$prefix/bin/python -I|" "$script"
done
find "$stage$prefix" -name direct_url.json -delete
# The records of both have hashes made of the staging path, which would make each build another one.
find "$stage$prefix" -path '*.dist-info/RECORD' -exec sed -i -e '/^\([.][.]\/\)*bin\//d' -e '/direct_url[.]json,/d' {} +
"$python" -I -m compileall -q -f -s "$stage" -p / --invalidation-mode unchecked-hash "$stage$prefix/lib"
