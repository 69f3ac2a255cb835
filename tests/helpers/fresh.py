"""Fresh root file system of this machine's distribution, to test on an unprepared machine.

Each command runs in its own mount and process namespaces, which end with it. So no process and no
mount remains, and removing the root cannot delete files outside it through a mount.
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

NEEDED_SPACE = 25 * 10**9
"""Bytes for a root with PyTorch, its cache and unpacked wheels."""

MOUNTED = "/mounted"
"""Folder in a root for read-only mounts of paths of this machine."""

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
"""Prefix of a command in a root; mounts and processes end with it."""

# Arguments: the root, the user, a file with a line "PATH TARGET" per read-only mount, the command.
_ENTER = """
root=$0 user=$1 mounts=$2
shift 2
set -e
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while read -r path target; do
  target=$root$target
  if [ -d "$path" ]; then mkdir -p "$target"
  else mkdir -p "$(dirname "$target")"; [ -e "$target" ] || : >"$target"; fi
  mount --bind "$path" "$target"
  mount -o remount,bind,ro "$target"
done <"$mounts"
exec chroot --userspec="$user" "$root" "$@"
"""


def pip_settings() -> dict[str, str]:
    """Read this machine's pip settings, from files and environment, as environment variables."""
    printed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    settings = {}
    # Pip lists the environment first, which takes precedence.
    for line in reversed(printed.splitlines()):
        name, value = line.split("=", 1)
        key = name.rpartition(".")[2]
        settings[f"PIP_{key.upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    return settings


def mount_settings(settings: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Translate pip settings for use in a root, and list the mounts that they need.

    Mounts are in a separate folder, because a package may write to the original path.

    Returns:
        Settings with translated paths, and the mount target of each path.
    """
    mounts, changed = {}, {}
    for name, value in settings.items():
        words = []
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # A local index refers to files in its parent folder.
                whole = path.parent if path.name == "simple" else path
                mounts[str(whole)] = f"{MOUNTED}{whole}"
                word = word.replace(str(path), f"{MOUNTED}{path}")
            words.append(word)
        changed[name] = " ".join(words)
    return changed, mounts


def sources() -> list[tuple[str, str, str]]:
    """List address, suite and component of the distribution's apt sources on this machine."""
    form = "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"
    printed = subprocess.check_output(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], text=True
    )
    split = [line.split("\t") for line in printed.splitlines()]
    origin = platform.freedesktop_os_release()["ID"]
    return [
        (uri, suite, component) for name, uri, suite, component in split if name.lower() == origin
    ]


def obstacle(folder: Path) -> str | None:
    """Return the reason why no fresh root can be created in a folder, or None."""
    if os.geteuid():
        return "only root can create a fresh root"
    missing = [name for name in ("debootstrap", "unshare", "chroot") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if subprocess.run([*NAMESPACES, "true"], check=False).returncode:
        return "namespaces are not permitted here"
    if not sources():
        return "apt has no sources; run apt-get update"
    if shutil.disk_usage(folder).free < NEEDED_SPACE:
        return f"less than {NEEDED_SPACE / 1e9:.0f} GB free in {folder}"
    return None


@dataclass
class Root:
    """Folder with a root file system.

    Attributes:
        path: the folder.
        settings: pip settings, environment variables of every command.
    """

    path: Path
    settings: dict[str, str] = field(default_factory=pip_settings)

    @classmethod
    def create(cls, path: Path) -> "Root":
        """Install the minimal distribution from this machine's apt sources."""
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        mirror = next((uri for uri, suite, _ in sources() if suite == codename), None)
        if mirror is None:
            pytest.skip(f"apt has no sources of {codename}")
        done = subprocess.run(
            [*NAMESPACES, "debootstrap", "--variant=minbase", codename, str(path), mirror],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"debootstrap cannot reach its packages: {done.stdout[-300:]}")
        listed = (f"deb {uri} {suite} {component}\n" for uri, suite, component in sources())
        (path / "etc/apt/sources.list").write_text("".join(listed))
        for name in ("apt.conf.d", "auth.conf.d"):
            shutil.copytree(f"/etc/apt/{name}", path / "etc/apt" / name, dirs_exist_ok=True)
        return cls(path)

    def copy(self, path: Path) -> "Root":
        """Copy the root to another folder."""
        subprocess.run(["cp", "-a", self.path, path], check=True)
        return Root(path)

    def remove(self) -> None:
        """Remove the folder; fail if it still has mounts."""
        mounted = [
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        ]
        assert not [target for target in mounted if target.startswith(f"{self.path}/")]
        shutil.rmtree(self.path)

    def run(
        self,
        command: list[str] | str,
        user: str = "0:0",
        folder: str = "/",
        env: dict[str, str] | None = None,
        network: bool = True,
    ) -> str:
        """Run a command, which must succeed, and return its output; the shell runs strings."""
        mounts = self.path.parent / f"{self.path.name}.mounts"
        settings, targets = mount_settings(self.settings)
        # Name resolution.
        targets |= {path: path for path in ("/etc/resolv.conf", "/etc/hosts")}
        mounts.write_text("".join(f"{path} {target}\n" for path, target in targets.items()))
        words = ["sh", "-c", command] if isinstance(command, str) else command
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        environment |= settings | (env or {})
        done = subprocess.run(
            [*NAMESPACES, *([] if network else ["--net"]), "sh", "-c", _ENTER]
            + [str(self.path), user, str(mounts), "env", "-i"]
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
        """Bytes of the packages that pip installed, from its report and its download cache."""
        urls = [
            entry["download_info"]["url"]
            for entry in json.loads((self.path / report.lstrip("/")).read_text())["install"]
        ]
        prefix = f"file://{MOUNTED}"
        local = [Path(unquote(url.removeprefix(prefix))) for url in urls if url.startswith(prefix)]
        cached = (self.path / cache.lstrip("/")).rglob("*")
        return sum(path.stat().st_size for path in [*local, *cached] if path.is_file())
