"""What the shared loop is given and what it gives back: learner, input, stage and result."""

import abc
import dataclasses
import zlib
from typing import Any, Generic, Protocol, TypeVar

import jax
from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.train.state import TrainState

Batch = TypeVar("Batch")
BatchT_co = TypeVar("BatchT_co", covariant=True)
Tree = Any


class Batches(Protocol[BatchT_co]):
    """An input iterator whose place can be saved (as JSON) and found again exactly."""

    def __next__(self) -> BatchT_co:
        """The next batch."""
        ...

    def get_state(self) -> Any:
        """The place, as JSON."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a place."""
        ...


class StepBatches(abc.ABC, Generic[Batch]):
    """Endless batches, each a function of its step alone: what `Batches` asks for, where nothing is read in order."""

    _step = 0

    def __next__(self) -> Batch:
        """The next batch."""
        self._step += 1
        return self.batch(self._step - 1)

    @abc.abstractmethod
    def batch(self, step: int) -> Batch:
        """The batch of a step."""

    def get_state(self) -> dict[str, int]:
        """The place: batches given so far."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place."""
        self._step = state["step"]


class Learner(Generic[Batch]):
    """What a stage must bring to the loop.

    Attributes:
      shown: names of the metrics that the progress line shows.
      frozen: the part of the policy that the stage leaves as it is (see `train.trainable`); None: it trains all.
    """

    shown: tuple[str, ...] = ("loss",)
    frozen: Tree = None

    def initial(self) -> TrainState:
        """The state before the first step; a new one at each call, since steps donate it."""
        raise NotImplementedError

    def release(self) -> None:
        """Gives up the arrays that `initial` copied, where they are large; the loop calls it when it has the state."""

    def step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        """One step.

        Args:
          state: the state; may be donated.
          batch: what the input iterator gave.
          key: the only source of randomness.

        Returns:
          The new state, and scalar metrics (on the device or not; the loop fetches them when the next step is under
          way). `first_bad`, where given, is that of `state.apply_gradients`.
        """
        raise NotImplementedError

    def contents(self, batch: Batch) -> str:
        """What a batch holds, for the message that its loss or gradient was not finite; empty: nothing to name."""
        return ""

    def validate(self, state: TrainState) -> dict[str, Any]:
        """Metrics on held-out data; `loss` is what early stopping watches. Empty: the stage does not validate."""
        return {}

    def rewind(self, step: int) -> None:
        """Forgets everything written beside the checkpoint after `step` steps; called before a start and a resume."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """How long a stage runs, and what it does between steps.

    Attributes:
      name: names its folder, its events and its random key.
      seed: the run's seed.
      max_steps: its last step; None for no limit.
      validate_every: steps between validations; 0 for never. There is one before the first and after the last step.
      patience: validations without a fall of the loss after which it ends, with the parameters of the lowest; 0
        for no early stop, and the last parameters.
      checkpoint_every: steps between checkpoints; there is also one before the first and after the last step, and
        at every validation that is the best so far.
      keep: how many of the latest checkpoints stay.
      log_every: steps between two lines where there is no terminal, and between two TensorBoard points.
    """

    name: str
    seed: int
    max_steps: int | None
    validate_every: int = 0
    patience: int = 0
    checkpoint_every: int = 50
    keep: int = 2
    log_every: int = 10

    @classmethod
    def of(cls, config: ConfigDict, name: str, **fields: Any) -> "Stage":
        """A stage with the seed, checkpoint and log sections of a config.

        Args:
          config: the whole config.
          name: the stage's.
          **fields: the others.
        """
        shared = {"seed": config.run.seed, "checkpoint_every": config.checkpoint.every}
        return cls(name, **shared, keep=config.checkpoint.keep, log_every=config.log.every, **fields)

    def __post_init__(self):
        """Refuses a stage that cannot end or be saved."""
        if self.max_steps is None and not (self.validate_every and self.patience):
            raise UserError(f"stage {self.name} would never end", "config", "give it a number of steps")
        if self.checkpoint_every < 1:
            raise UserError(f"checkpoint.every must be at least 1, got {self.checkpoint_every}", "config.checkpoint")


def data_seed(seed: int, stage: str) -> int:
    """The seed of the order in which a stage sees its data."""
    return zlib.crc32(f"{seed}/{stage}".encode())


@dataclasses.dataclass(frozen=True)
class Result:
    """What a stage ended with.

    Attributes:
      params: the parameters at `best_step`.
      step: its last step.
      best_step: the step of the lowest validation loss, where the stage stops early by it; else the last.
      reason: why it ended: max_steps, patience or data.
      seconds: how long it took, over all its processes, validation and checkpoints included.
    """

    params: Tree
    step: int
    best_step: int
    reason: str
    seconds: float
