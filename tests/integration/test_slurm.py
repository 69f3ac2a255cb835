"""The grid on a single-node SLURM cluster, started on loopback for the test."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tiny_run import TINY

from leuk.runs.process import CODE
from leuk.runs.record import read_records
from leuk.runs.state import LOCK, is_held

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "scancel")
PATIENCE = 60.0
"""Timeout in seconds for a daemon."""

CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MailProg=/bin/true
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=500 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for server in sockets:
            server.bind(("127.0.0.1", 0))
        return [server.getsockname()[1] for server in sockets]


@contextmanager
def daemon(*command: str) -> Iterator[None]:
    """Run a daemon in the foreground and stop it at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(is_ready: Callable[[], bool], name: str, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_ready():
        if time.monotonic() > deadline:
            logs = "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))
            pytest.fail(f"{name} did not come up in {PATIENCE:.0f} s:\n{logs}")
        time.sleep(0.2)


def idle() -> bool:
    """Return True if a node waits for jobs."""
    done = subprocess.run(
        ["sinfo", "--noheader", "-o", "%T"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == "idle"


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Start a single node with this host's name; yields the folder of its files."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not found; apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("only root can start SLURM's daemons")
    # Not in pytest's folder: munge requires that everyone can access its socket.
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as daemons:
        folder = Path(scratch)
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        controller, node = free_ports(2)
        values = {"host": socket.gethostname().split(".")[0], "cores": os.cpu_count()}
        ports = {"controller": controller, "node": node}
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, **values, **ports))
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        munged = ("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        daemons.enter_context(daemon(*munged))
        wait_for((folder / "munge.socket").exists, "munged", folder)
        daemons.enter_context(daemon("slurmctld", "-D"))
        daemons.enter_context(daemon("slurmd", "-D", "-N", str(values["host"])))
        wait_for(idle, "SLURM", folder)
        yield folder


def test_demo_grid_is_run_by_slurm(slurm: Path, start: Start, tmp_path: Path) -> None:
    axes = ("-m", "experiment=demo", "model=cnn,vit", "augmentation=none,dcgan")
    cluster = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=all")
    tiny = [text for text in TINY if not text.startswith("augmentation=")]
    sweep = start("train", tmp_path, *axes, *tiny, *cluster)
    printed = sweep.communicate()[0]
    assert sweep.returncode == 0, printed
    assert "4 of 4 runs complete" in printed
    records, unreadable = read_records(tmp_path / "runs/demo")
    assert not unreadable
    assert [record.status for record in records] == ["complete"] * 4
    logs = [path.read_text() for path in tmp_path.glob("runs/demo/*/leuk.log")]
    assert sum(log.count("training leuk.gans") for log in logs) == 1
    assert (tmp_path / "runs/demo/report/report.html").exists()
    written = list(tmp_path.glob("runs/demo/.submitit/*/*_log.out"))
    assert len(written) == 4
    for path in written:
        assert not {"\x1b", "\r", "\b"} & set(path.read_text())


def test_canceled_job_resumes_when_the_sweep_is_started_again(
    slurm: Path, start: Start, tmp_path: Path
) -> None:
    runs = ("-m", "name=s", "seed=0,1", "fit.epochs=40", "fit.patience=40", "explain=none")
    cluster = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=all")
    sweep = start("train", tmp_path, *runs, *cluster)
    while not (kept := list(tmp_path.glob("runs/s/*/checkpoints/resume/[!.]*.ckpt"))):
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.05)
    subprocess.run(["scancel", "--partition=all"], check=True)
    wait_for(idle, "the node", slurm)
    # Without accounting, submitit does not notice that its jobs are gone.
    sweep.terminate()
    printed = sweep.communicate()[0]
    assert sweep.returncode == CODE, printed
    assert "stopped by SIGTERM" in printed
    assert not any(is_held(path.parent / LOCK) for path in tmp_path.glob("runs/s/*/record.json"))
    sweep = start("train", tmp_path, *runs, *cluster)
    printed = sweep.communicate()[0]
    assert sweep.returncode == 0, printed
    assert "resuming after epoch" in (kept[0].parents[2] / "leuk.log").read_text()
