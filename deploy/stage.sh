#!/usr/bin/env bash
# Fill the folder STAGE with the files of a package of this tree; deb and rpm are made of it.
#
#   deploy/stage.sh STAGE
#
# Environment: PYTHON (/usr/bin/python3), the interpreter of the hosts it is for, TOOLS (any Python
# with pip and hatchling; .venv, or build/build-tools), and MACHINE (deploy/environment.sh).
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
stage=$1
python=${PYTHON:-/usr/bin/python3}

PYTHON=$python deploy/environment.sh "$stage" /opt/overlayd
# Leave out the command-line tools of the dependencies.
find "$stage/opt/overlayd/bin" -type f ! -name overlayd -delete
rmdir "$stage"/opt/overlayd/include/python* "$stage/opt/overlayd/include"
# It writes its manual pages and completions itself: if made for another kind of machine, by one for this.
runs=$stage
if [ -n "${MACHINE:-}" ]; then
  runs=$(mktemp -d)
  trap 'rm -rf "$runs"' EXIT
  PYTHON=$python MACHINE="" deploy/environment.sh "$runs" /opt/overlayd
fi
libraries=$(echo "$runs"/opt/overlayd/lib/python*/site-packages)
overlayd() {
  "$python" -I -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from overlay.cli.main import main; sys.exit(main())' \
    "$libraries" "$@"
}
overlayd version >&2
mkdir -p "$stage"/usr/{bin,share/man/man5,share/man/man8,share/bash-completion/completions} \
  "$stage"/usr/share/{zsh/vendor-completions,fish/vendor_completions.d,doc/overlayd}
ln -s /opt/overlayd/bin/overlayd "$stage/usr/bin/overlayd"
overlayd man | gzip -9n > "$stage/usr/share/man/man8/overlayd.8.gz"
overlayd man overlayd.toml | gzip -9n > "$stage/usr/share/man/man5/overlayd.toml.5.gz"
gzip -9n < CHANGELOG.md > "$stage/usr/share/doc/overlayd/changelog.gz"
overlayd completion bash > "$stage/usr/share/bash-completion/completions/overlayd"
overlayd completion zsh > "$stage/usr/share/zsh/vendor-completions/_overlayd"
overlayd completion fish > "$stage/usr/share/fish/vendor_completions.d/overlayd.fish"
install -D -m 644 deploy/overlayd.service "$stage/usr/lib/systemd/system/overlayd.service"
install -D -m 644 deploy/overlayd.sysusers "$stage/usr/lib/sysusers.d/overlayd.conf"
install -D -m 644 deploy/overlayd.preset "$stage/usr/lib/systemd/system-preset/80-overlayd.preset"
install -D -m 644 deploy/overlayd.toml "$stage/etc/overlayd/overlayd.toml"
install -D -m 644 -t "$stage/usr/lib/systemd/system" deploy/monitoring/overlayd-textfile.{service,timer}
install -D -m 644 -t "$stage/usr/share/overlayd/monitoring" deploy/monitoring/{alerts.yml,grafana.json}
install -D -m 755 -t "$stage/usr/share/overlayd/monitoring" deploy/monitoring/overlayd-textfile
install -D -m 644 deploy/requirements.lock "$stage/usr/share/doc/overlayd/requirements.lock"
install -D -m 644 deploy/deb/copyright "$stage/usr/share/doc/overlayd/copyright"
# Leave out bytecode caches of other Python versions and tools.
find "$stage/usr" "$stage/etc" -name __pycache__ -prune -exec rm -rf {} +
