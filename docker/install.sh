#!/bin/sh
# Build steps of the image. The steps that change least come first, so that Docker reuses their layers:
#   install.sh system   compiler, Python where there is none, user, folders; as root, on Debian
#   install.sh wheels   the environment and leuk's dependencies; reads only pyproject.toml
#   install.sh leuk     leuk itself, from the checkout that contains this script
# Variables: EXTRAS, comma-separated extras of leuk; TORCH_INDEX, package index of PyTorch if not PyPI.
set -eu

source=$(cd "$(dirname "$0")/.." && pwd)
venv=/opt/leuk

install_system() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  # torch.compile needs a C++ compiler on a CPU, a C compiler on a GPU, and Python's headers.
  apt-get install -q -y --no-install-recommends g++
  command -v python3 >/dev/null ||
    apt-get install -q -y --no-install-recommends python3 python3-venv python3-dev
  rm -rf /var/lib/apt/lists/*
  useradd --uid 1000 --create-home leuk
  # Writable for every user: a container may run as a user without a home.
  mkdir -p /home/leuk/.cache /work/outputs
  chmod 1777 /home/leuk /home/leuk/.cache /work /work/outputs
}

install_wheels() {
  python3 -m venv "$venv"
  list=$(mktemp)
  requirements >"$list"
  if [ -n "${TORCH_INDEX:-}" ]; then
    grep -E '^torch(vision)?[^a-z-]' "$list" >"$list.torch"
    "$venv/bin/pip" install -q --index-url "$TORCH_INDEX" -r "$list.torch"
  fi
  "$venv/bin/pip" install -q -r "$list"
  rm -f "$list" "$list.torch"
}

requirements() {
  python3 - "$source/pyproject.toml" "${EXTRAS:-}" <<'END'
import sys
import tomllib
from pathlib import Path

path, extras = sys.argv[1:]
project = tomllib.loads(Path(path).read_text())["project"]
chosen = [project["optional-dependencies"][extra] for extra in extras.split(",") if extra]
print(*project["dependencies"], *sum(chosen, []), sep="\n")
END
}

install_leuk() {
  "$venv/bin/pip" install -q --no-deps "$source"
  "$venv/bin/pip" check
}

case "${1:-}" in
  system | wheels | leuk) "install_$1" ;;
  *)
    echo "usage: install.sh system|wheels|leuk" >&2
    exit 2
    ;;
esac
