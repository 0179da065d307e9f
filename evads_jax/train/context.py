"""What every stage of one experiment shares, put together once."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.models import lora
from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.processes import fail_together, total
from evads_jax.train import trainable
from evads_jax.train.checkpoint import finished
from evads_jax.train.inputs import Inputs
from evads_jax.train.loop import fit
from evads_jax.train.stage import Learner, Result, Stage, data_seed

Tree = Any


@dataclasses.dataclass(frozen=True)
class Context:
    """An experiment's fixed parts.

    Attributes:
      config: the whole config.
      workdir: the run's folder.
      log: the run's events.
      tokenizer: the policy's tokenizer.
      model: the policy's sizes.
      sources: split → records (random access), of sft, rl and validation.
      mesh: the devices; None for one device.
      console: where progress is shown; default standard output.
    """

    config: ConfigDict
    workdir: Path
    log: EventLog
    tokenizer: Tokenizer
    model: QwenVLConfig
    sources: Mapping[str, Any]
    mesh: jax.sharding.Mesh | None = None
    console: Console | None = None

    def inputs(self) -> Inputs:
        """What turns records into batches."""
        return Inputs(self.config.data, self.config.run.language, self.tokenizer, self.model)

    def stage(self, name: str, **fields: Any) -> Stage:
        """A stage of this experiment; see `Stage.of`."""
        return Stage.of(self.config, name, **fields)

    def data_seed(self, stage: str) -> int:
        """The seed of a stage's data order."""
        return data_seed(self.config.run.seed, stage)

    def divide(self, params: Tree, stage: str) -> trainable.Trainable:
        """What a stage that starts from `params` trains, and what it leaves as it is."""
        return trainable.divide(self.config, self.model, params, stage, self.mesh)

    def fit(
        self, learner: Learner[Any], batches: Any, stage: Stage, split: str, format: str, *, together: bool
    ) -> Result:
        """Runs a stage on this experiment's mesh, folder and log; what did not fit stands in its first event.

        Args:
          learner: what a step is.
          batches: its input.
          stage: how long it runs.
          split: the split that it learns from.
          format: the prompt format that it learns with.
          together: as in `Inputs.survey`.

        Returns:
          The stage's result, with the whole policy as its parameters.
        """
        about = {}
        if finished(self.workdir, stage.name) is None:
            about = {"split": split, "fit": self._survey(split, format, together)}
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            result = fit(learner, batches, stage, self.workdir, self.log, self.console, about)
        return dataclasses.replace(result, params=lora.combine(learner.frozen, result.params))

    def division(self, batch: int, field: str) -> Division:
        """How batches of so many rows are divided among the run's processes; see `Division.of`."""
        return Division.of(self.mesh, batch, field)

    def _survey(self, split: str, format: str, together: bool) -> dict[str, int]:
        """`Inputs.survey` of a split, of which each process reads a share."""
        source, counts = self.sources[split], dict[str, int]()
        failure: UserError | None = None
        share = range(jax.process_index(), len(source), jax.process_count())
        try:
            counts = self.inputs().survey(source, format, together, share)
        except UserError as error:
            failure = error
        fail_together(failure, f"fit its share of the split {split}", "config.data.prompt_tokens")
        counts = total(counts)
        if together and counts["left_out"] == counts["questions"]:
            what = f"no question of the split {split} fits"
            raise UserError(what, "config.data.suffix_tokens", "raise it")
        return counts
