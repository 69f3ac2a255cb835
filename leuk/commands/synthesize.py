"""``leuk synthesize``: a GAN's cells, the training part they balance, and how good they are."""

from omegaconf import DictConfig

from leuk.report.gan_tables import write_gan_report
from leuk.runs.identity import synthesis_folder
from leuk.runs.launching import check_launcher
from leuk.runs.preconditions import check_image_sizes, check_paths, check_synthesis
from leuk.runs.synthesis_run import check_kept, run_synthesis


def run(cfg: DictConfig) -> None:
    """Do one job; as a function of this module, so that a process of its own knows our words."""
    run_synthesis(cfg)


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what cannot be built, written or told apart."""
    check_launcher(cells[0])
    for cfg in cells:
        check_synthesis(cfg)
    check_image_sizes(cells)
    check_paths(cells, [synthesis_folder(cfg, cfg.hydra) for cfg in cells])
    for cfg in cells:
        check_kept(cfg)


def finish(cells: list[DictConfig]) -> int:
    """Write the table and the figure of all GANs of the sweep; a job that failed ended it."""
    sweeps = dict.fromkeys(synthesis_folder(cfg, cfg.hydra).parent for cfg in cells)
    for sweep in sweeps:
        print(write_gan_report(sweep))
        print(f"look in {sweep}: table_2.md, figure_8.png, and a folder for each GAN")
    return 0
