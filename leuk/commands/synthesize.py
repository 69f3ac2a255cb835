"""``leuk synthesize``: synthetic images of a GAN, the balanced training set, quality metrics."""

from omegaconf import DictConfig

from leuk.report.gans import write_gan_report
from leuk.runs.gan import check_kept, run_synthesis
from leuk.runs.preconditions import (
    check_image_sizes,
    check_launcher,
    check_paths,
    check_synthesis,
)
from leuk.runs.run import synthesis_folder

run = run_synthesis


def check(configs: list[DictConfig]) -> None:
    """Check launcher, configs and output folders before any work."""
    check_launcher(configs[0])
    for cfg in configs:
        check_synthesis(cfg)
    check_image_sizes(configs)
    check_paths(configs, [synthesis_folder(cfg, cfg.hydra) for cfg in configs])
    for cfg in configs:
        check_kept(cfg)


def finish(configs: list[DictConfig]) -> int:
    """Write the table and figure of all GANs; a failed job has already raised its error."""
    sweeps = dict.fromkeys(synthesis_folder(cfg, cfg.hydra).parent for cfg in configs)
    for sweep in sweeps:
        print(write_gan_report(sweep))
        print(f"written to {sweep}: table_2.md, figure_8.png and a folder per GAN")
    return 0
