#!/bin/sh
# A container on network blue: a Docker container if Docker runs, otherwise a bare one.
#
#   overlayd-demo start NAME            start and attach it
#   overlayd-demo exec NAME COMMAND...  run a command in it
#   overlayd-demo address NAME          print its address, on whichever host it is
set -e
verb=$1 name=$2
shift 2
if [ "$verb" = address ]; then
  overlayd endpoint ls --json | python3 -c 'import json, sys
print(*(e["ips"][0] for e in json.load(sys.stdin)["endpoints"] if e["name"] == sys.argv[1]))' "$name"
  exit
fi
if docker info >/dev/null 2>&1 && command -v busybox >/dev/null; then
  gateway=$(overlayd network inspect blue --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["subnets"][0]["gateway"])')
  case $verb in
    start)
      # Build an image without a registry: a static busybox.
      if ! docker image inspect lab:1 >/dev/null 2>&1; then
        root=$(mktemp -d)
        mkdir -p "$root/bin" "$root/etc" "$root/tmp"
        cp "$(command -v busybox)" "$root/bin/busybox"
        for tool in $(busybox --list | grep -vx busybox); do ln -s busybox "$root/bin/$tool"; done
        tar -C "$root" -c . | docker import - lab:1 >/dev/null
        rm -rf "$root"
      fi
      docker inspect "$name" >/dev/null 2>&1 ||
        docker create --name "$name" --network none --dns "$gateway" --dns-search overlay lab:1 sleep 1000000 >/dev/null
      docker start "$name" >/dev/null
      overlayd attach "docker:$name" --network blue ;;
    exec) exec docker exec "$name" "$@" ;;
  esac
else
  case $verb in
    start) overlayd container add "$name" --network blue ;;
    exec) exec overlayd container exec "$name" -- "$@" ;;
  esac
fi
