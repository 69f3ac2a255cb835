"""A fresh root of this machine's distribution, for tests of what an unprepared machine lacks.

Every command in it runs in mount and process namespaces of its own, which end with it: whatever
happens, no mount is left that a removal of the root could reach through, and no process.
"""

import ast
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOM = 25 * 10**9
"""Bytes that a root with PyTorch, its cache and the wheels being unpacked takes."""

LENT = "/lent"
"""Folder in a root below which it sees paths of this machine."""

SPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
"""What a command in a root is started by; mounts and processes end with it."""

# The root, its user, a file of lines "PATH PLACE" of what is lent read-only; then the command.
_ENTER = """
root=$0 user=$1 lent=$2
shift 2
set -e
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while read -r path place; do
  place=$root$place
  if [ -d "$path" ]; then mkdir -p "$place"
  else mkdir -p "$(dirname "$place")"; [ -e "$place" ] || : >"$place"; fi
  mount --bind "$path" "$place"
  mount -o remount,bind,ro "$place"
done <"$lent"
exec chroot --userspec="$user" "$root" "$@"
"""


def pip_settings() -> dict[str, str]:
    """This machine's settings of pip, from files and environment, as environment variables."""
    told = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    settings = {}
    # The environment is listed first, and counts most.
    for line in reversed(told.splitlines()):
        name, value = line.split("=", 1)
        key = name.rpartition(".")[2]
        settings[f"PIP_{key.upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    return settings


def lend(settings: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Settings of pip as they read in a root, and where there each path that they name is lent.

    That is a folder of its own, since a package may want to write what lies at the path itself.
    """
    places, changed = {}, {}
    for name, value in settings.items():
        words = []
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # A local index names files beside itself.
                whole = path.parent if path.name == "simple" else path
                places[str(whole)] = f"{LENT}{whole}"
                word = word.replace(str(path), f"{LENT}{path}")
            words.append(word)
        changed[name] = " ".join(words)
    return changed, places


def sources() -> list[tuple[str, str, str]]:
    """Address, suite and component of what this machine's apt reads of its distribution."""
    form = "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"
    told = subprocess.check_output(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], text=True
    )
    split = [line.split("\t") for line in told.splitlines()]
    origin = platform.freedesktop_os_release()["ID"]
    return [(uri, suite, part) for name, uri, suite, part in split if name.lower() == origin]


def why_not(folder: Path) -> str | None:
    """Why no fresh root can be made here, if so."""
    if os.geteuid():
        return "a fresh root needs root"
    missing = [name for name in ("debootstrap", "unshare", "chroot") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if subprocess.run([*SPACES, "true"], check=False).returncode:
        return "this root may not make namespaces"
    if not sources():
        return "apt knows no sources; run apt-get update"
    if shutil.disk_usage(folder).free < ROOM:
        return f"less than {ROOM / 1e9:.0f} GB free in {folder}"
    return None


@dataclass
class Root:
    """A folder to change the root to.

    Attributes:
        path: the folder.
        settings: environment variables of every command.
    """

    path: Path
    settings: dict[str, str] = field(default_factory=pip_settings)

    @classmethod
    def make(cls, path: Path) -> "Root":
        """Install the distribution's minimum, from where this machine's apt has it."""
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        mirror = next((uri for uri, suite, _ in sources() if suite == codename), None)
        if mirror is None:
            pytest.skip(f"apt has no sources of {codename}")
        done = subprocess.run(
            [*SPACES, "debootstrap", "--variant=minbase", codename, str(path), mirror],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"debootstrap cannot reach its packages: {done.stdout[-300:]}")
        listed = (f"deb {uri} {suite} {part}\n" for uri, suite, part in sources())
        (path / "etc/apt/sources.list").write_text("".join(listed))
        for name in ("apt.conf.d", "auth.conf.d"):
            shutil.copytree(f"/etc/apt/{name}", path / "etc/apt" / name, dirs_exist_ok=True)
        return cls(path)

    def copy(self, path: Path) -> "Root":
        """The same root once more, in another folder."""
        subprocess.run(["cp", "-a", self.path, path], check=True)
        return Root(path)

    def remove(self) -> None:
        """Remove the folder, unless something is still mounted below it."""
        mounted = [
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        ]
        assert not [place for place in mounted if place.startswith(f"{self.path}/")]
        shutil.rmtree(self.path)

    def run(
        self,
        command: list[str] | str,
        user: str = "0:0",
        folder: str = "/",
        env: dict[str, str] | None = None,
        network: bool = True,
    ) -> str:
        """What a command printed; text is the shell's to read. It has to succeed."""
        lent = self.path.parent / f"{self.path.name}.lent"
        settings, places = lend(self.settings)
        # How to reach hosts.
        places |= {path: path for path in ("/etc/resolv.conf", "/etc/hosts")}
        lent.write_text("".join(f"{path} {place}\n" for path, place in places.items()))
        words = ["sh", "-c", command] if isinstance(command, str) else command
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        environment |= settings | (env or {})
        done = subprocess.run(
            [*SPACES, *([] if network else ["--net"]), "sh", "-c", _ENTER]
            + [str(self.path), user, str(lent), "env", "-i"]
            + [f"{name}={value}" for name, value in environment.items()]
            + ["sh", "-c", f"cd {shlex.quote(folder)} && exec {shlex.join(words)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout[-5000:]}"
        return done.stdout

    def fetched(self, report: str, cache: str) -> int:
        """Bytes of the packages that pip took, from its report and its cache of what it fetched."""
        urls = [
            entry["download_info"]["url"]
            for entry in json.loads((self.path / report.lstrip("/")).read_text())["install"]
        ]
        prefix = f"file://{LENT}"
        lent = [Path(unquote(url.removeprefix(prefix))) for url in urls if url.startswith(prefix)]
        cached = (self.path / cache.lstrip("/")).rglob("*")
        return sum(path.stat().st_size for path in [*lent, *cached] if path.is_file())
