#!/bin/sh
# The image's own steps, what changes least first, so that a layer is made again only when it must:
#   install.sh system   compiler, Python where there is none, user, folders; as root, on Debian
#   install.sh wheels   the environment and all that leuk depends on, from pyproject.toml alone
#   install.sh leuk     leuk itself, from the source around this script
# Settings: EXTRAS, extras of leuk by comma; TORCH_INDEX, where PyTorch comes from if not from PyPI.
set -eu

source=$(cd "$(dirname "$0")/.." && pwd)
venv=/opt/leuk

install_system() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  # torch.compile compiles C++ on a CPU and C on a GPU, both against Python's headers.
  apt-get install -q -y --no-install-recommends g++
  command -v python3 >/dev/null ||
    apt-get install -q -y --no-install-recommends python3 python3-venv python3-dev
  rm -rf /var/lib/apt/lists/*
  useradd --uid 1000 --create-home leuk
  # Whoever calls: a container may run as any user, who has no home of their own.
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
