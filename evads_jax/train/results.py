"""What a finished run leaves: its config, and the policy that one of its stages ended with."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax import workdir as run_folder
from evads_jax.data.tokenizer import Tokenizer, load_tokenizer
from evads_jax.errors import UserError
from evads_jax.models import lora, qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.train import starting, trainable
from evads_jax.train.checkpoint import finished

STAGES = ("mg_grpo", "control", "sft")  # the later a stage, the earlier here
BASE = "base"


@dataclasses.dataclass(frozen=True)
class Policy:
    """The policy of a run at the end of one stage, before its parameters are read.

    Attributes:
      folder: the run's; of one in a bucket a copy, which holds its config.json.
      stage: the stage's name.
      weights: names the parameters, e.g. "mg_grpo, step 60".
      config: the run's config.
      tokenizer: the policy's tokenizer.
      model: its sizes.
    """

    folder: Path
    stage: str
    weights: str
    config: ConfigDict
    tokenizer: Tokenizer
    model: QwenVLConfig

    @property
    def shards(self) -> str:
        """The folder of the shards that it learned from."""
        return self.config.data.shards or storage.name_of(_home(self.folder, self.config) / "shards")

    def parameters(self) -> Any:
        """The parameters, adapters folded in.

        Raises:
          UserError: a checkpoint cannot be read.
        """
        config, model = self.config, self.model
        whole = not config.lora.rank and not config.train.freeze_vision
        if self.stage == BASE:
            return starting.parameters(config, model)
        if whole:  # a stage's checkpoint holds everything
            return trainable.load_result(config, model, qwen_vl.abstract(model), self.folder, self.stage)
        params = starting.parameters(config, model)
        params = trainable.load_result(config, model, params, _home(self.folder, config), "sft")
        if self.stage != "sft":
            params = trainable.load_result(config, model, params, self.folder, self.stage)
        return lora.merge(params)


def read_config(folder: str | Path) -> ConfigDict:
    """The config of a run, whatever its job.

    Raises:
      UserError: the folder holds none.
    """
    return ConfigDict(run_folder.read(storage.fetched(folder, run_folder.CONFIG)))


def read_experiment(folder: Path) -> ConfigDict:
    """The config of a run of the job `experiment`.

    Raises:
      UserError: the folder holds none.
    """
    path, config = folder / run_folder.CONFIG, read_config(folder)
    if config.get("job") != "experiment":
        raise UserError(f"a run of the job {config.get('job')!r} has no model", str(folder), "give one of mg_grpo")
    if missing := [name for name in ("lora", "train") if name not in config]:
        what = f"the run was made by an earlier version: its config has no {', '.join(missing)}"
        raise UserError(what, str(path), "run it again")
    return config


def find_policy(folder: str | Path, stage: str | None = None) -> Policy:
    """The policy of a run; nothing large is read.

    Args:
      folder: the run's, also in a bucket.
      stage: sft, control, mg_grpo or base; None: the last of them that is finished.

    Raises:
      UserError: no such run, no such finished stage, or no tokenizer.
    """
    folder = storage.fetched(folder, run_folder.CONFIG)
    config = read_experiment(folder)
    stages = sorted(name for name in STAGES if finished(folder, name))
    chosen = stage or next((name for name in STAGES if name in stages), None)
    if chosen != BASE and chosen not in stages:
        what = f"no finished stage {chosen}" if chosen else "no finished stage"
        raise UserError(what, storage.name_of(folder), "it has " + (", ".join(stages) or "none"))
    path = config.tokenizer.path or storage.name_of(_home(folder, config) / "tokenizer")
    tokenizer = load_tokenizer(config.tokenizer.kind, path)
    weights = f"seed {config.run.seed}"
    if chosen != BASE:
        weights = f"step {(finished(folder, chosen) or {})['best_step']}"
    model = QwenVLConfig.from_config(config.model, tokenizer.size)
    return Policy(folder, chosen, f"{chosen}, {weights}", config, tokenizer, model)


def _home(folder: Path, config: ConfigDict) -> Path:
    """The run that prepared the data and trained SFT: this one, or that which it started from."""
    return Path(config.run.sft_from) if config.run.sft_from else folder
