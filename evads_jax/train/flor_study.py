"""The job `flor_study`: every norm of every network over several seeds, on the same images, steps and episodes.

W/images                        the image sets of all runs
W/runs/<network>_<norm>/<seed>  a run of the job `flor`
W/landscape                     the job `flor_landscape` over all of them
W/tables                        flor
"""

import copy
from pathlib import Path

from ml_collections import ConfigDict

from evads_jax import workdir as run_folder
from evads_jax.benchmark import tables
from evads_jax.benchmark.fewshot.tables import flor
from evads_jax.train import flor_job, flor_landscape


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the study that `config` describes.

    Args:
      config: see `study` in configs/flor.py.
      workdir: the study's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    run_folder.claim(workdir, config)
    for network, norms in config.norms.items():
        for norm in norms:
            flor_job.check(_experiment(config, workdir, network, norm, 0))
    folders = []
    for seed in config.seeds:  # seed by seed, so that a study that is cut short has whole seeds
        for network, norms in config.norms.items():
            for norm in norms:
                folders.append(workdir / "runs" / f"{network}_{norm}" / str(seed))
                flor_job.run(_experiment(config, workdir, network, norm, seed), folders[-1])
    paths = tables.write(workdir / "tables", "flor", flor(folders))
    around = copy.deepcopy(config.landscape)
    around.runs = ",".join(map(str, folders))
    flor_landscape.run(around, workdir / "landscape")
    print(paths[0].read_text(encoding="utf-8"))


def _experiment(config: ConfigDict, workdir: Path, network: str, norm: str, seed: int) -> ConfigDict:
    made = copy.deepcopy(config.experiment)
    made.run.seed, made.model.network, made.model.norm = seed, network, norm
    made.data.images = made.data.images or str(workdir / "images")
    made.eval.finetuned_episodes = config.finetuned_episodes if norm in config.finetuned else 0
    return made
