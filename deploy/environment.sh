#!/usr/bin/env bash
# Create, inside the folder STAGE, a self-contained Python environment to be installed at PREFIX.
#
#   deploy/environment.sh STAGE PREFIX REQUIREMENT...
#
# Only the interpreter, PYTHON (default /usr/bin/python3), is the target's, which must have the same
# minor version. Bytecode is compiled in advance and never checked against the sources, so nothing is
# written into PREFIX, and a package manager can remove all that it installed.
# The libraries are fetched into build/wheels-* once, and again when pyproject.toml changes or after
# `make clean`, so that a package can be rebuilt without a network.
set -euo pipefail
stage=$1 prefix=$2
shift 2
python=${PYTHON:-/usr/bin/python3}
tools=${TOOLS:-.venv/bin/python}

"$python" -m venv --without-pip --symlinks "$stage$prefix"
pip() { "$tools" -m pip --python "$stage$prefix/bin/python" --quiet --disable-pip-version-check "$@"; }
wheels=build/wheels-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(echo "$*" | sha256sum | cut -c 1-8)
if [ ! -e "$wheels/complete" ] || [ pyproject.toml -nt "$wheels/complete" ]; then
  rm -rf "$wheels"
  pip wheel --wheel-dir "$wheels" "$@"
  rm -f "$wheels"/overlayd-*
  touch "$wheels/complete"
fi
# The tree itself, in its current state.
"$tools" -m hatchling build -t wheel -d "$stage/wheel" >/dev/null 2>&1
pip install --no-index --find-links "$wheels" --find-links "$stage/wheel" --no-compile \
  --no-warn-script-location --root-user-action=ignore "${@/#./overlayd}"
rm -r "$stage/wheel"
rm -rf "$stage$prefix"/bin/[Aa]ctivate* "$stage$prefix/lib64"
printf 'home = %s\ninclude-system-site-packages = false\nversion = %s\n' \
  "$(dirname "$(readlink -f "$python")")" "$("$python" -c 'import platform; print(platform.python_version())')" \
  > "$stage$prefix/pyvenv.cfg"
# pip wrote the staging paths; replace them by PREFIX.
for script in "$stage$prefix"/bin/*; do
  [ -L "$script" ] || sed -i "1s|^#!.*|#!$prefix/bin/python -P|" "$script"
done
find "$stage$prefix" -name direct_url.json -delete
"$python" -m compileall -q -s "$stage" -p / --invalidation-mode unchecked-hash "$stage$prefix/lib"
