"""The job `flor_study`: every norm of every network over several seeds, on the same images, steps and episodes.

W/images                        the image sets of all runs
W/runs/<network>_<norm>/<seed>  a run of the job `flor`
W/landscape                     the job `flor_landscape` over all of them
W/tables                        flor

Several processes may share it (`train.only`).
"""

import copy
from pathlib import Path

from ml_collections import ConfigDict

from evads_jax import workdir as run_folder
from evads_jax.benchmark import tables
from evads_jax.benchmark.fewshot.tables import flor
from evads_jax.train import flor_job, flor_landscape
from evads_jax.train.only import chosen


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the study that `config` describes.

    Args:
      config: see `study` in configs/flor.py.
      workdir: the study's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    made = {  # seed by seed, so that a study that is cut short has whole seeds
        f"{network}_{norm}/{seed}": _experiment(config, workdir, network, norm, seed)
        for seed in config.seeds
        for network, norms in config.norms.items()
        for norm in norms
    }
    for one in made.values():
        flor_job.check(one)
    names = chosen(made, config.only)
    run_folder.claim(workdir, config)
    for name in names:
        flor_job.run(made[name], workdir / "runs" / name)
    if config.only:
        return
    folders = [workdir / "runs" / name for name in made]
    paths = tables.write(workdir / "tables", "flor", flor(folders))
    around = copy.deepcopy(config.landscape)
    around.runs = ",".join(map(str, folders))
    flor_landscape.run(around, workdir / "landscape")
    print(paths[0].read_text(encoding="utf-8"))


def _experiment(config: ConfigDict, workdir: Path, network: str, norm: str, seed: int) -> ConfigDict:
    made = copy.deepcopy(config.experiment)
    made.run.seed, made.model.network, made.model.norm = seed, network, norm
    made.train.update(config.training[network])
    made.data.images = made.data.images or str(workdir / "images")
    made.eval.finetuned_episodes = config.finetuned_episodes if norm in config.finetuned else 0
    return made
