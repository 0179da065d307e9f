"""Sizes of a FLoR network, and which norm it has."""

import dataclasses
import math
from typing import Any

from evads_jax.errors import UserError

# network → its norms. The last two mix a norm of one image with one of the batch.
NORMS = {
    "resnet10": ("batch", "instance", "fixed", "flor"),
    "vit": ("layer", "batch", "instance", "fixed", "flor"),
}
RESNET_NORMS = 12  # stem, 2 in each of four blocks, 1 in each of three shortcuts


@dataclasses.dataclass(frozen=True)
class FlorConfig:
    """One network.

    Attributes:
      network: "resnet10" or "vit".
      norm: "batch", "instance" (over the pixels or tokens of one image), "layer" (over the channels of one token; ViT
        only), "fixed" (the two mixed by the mean weight, always) or "flor" (by a weight drawn anew while training).
        A ResNet mixes instance and batch norms, a ViT layer and batch norms.
      beta: a and b of the weight's Beta distribution; its mean is a/(a+b).
      image_size: height and width in pixels.
      classes: of the base training's head.
      widths: channels of the four blocks of a ResNet10; the stem has those of the first.
      width, layers, heads, mlp_width, patch: of a ViT.
      norm_epsilon: what is added to every variance.
      momentum: share of the newest batch in the running statistics.
    """

    network: str = "resnet10"
    norm: str = "flor"
    beta: tuple[float, float] = (0.01, 0.01)
    image_size: int = 64
    classes: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    width: int = 384
    layers: int = 12
    heads: int = 6
    mlp_width: int = 1536
    patch: int = 16
    norm_epsilon: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self):
        """Refuses what is no network.

        Raises:
          UserError: naming the field.
        """
        if self.network not in NORMS:
            raise UserError(f"unknown network {self.network!r}", "config.model.network", "one of " + ", ".join(NORMS))
        if self.norm not in NORMS[self.network]:
            what = f"a {self.network} has no norm {self.norm!r}"
            raise UserError(what, "config.model.norm", "one of " + ", ".join(NORMS[self.network]))
        if len(self.beta) != 2 or min(self.beta) <= 0:
            raise UserError(f"no Beta distribution has a, b = {self.beta}", "config.model.beta", "two numbers above 0")
        if self.network == "resnet10" and len(self.widths) != 4:
            raise UserError(f"{len(self.widths)} widths for four blocks", "config.model.widths")
        if self.network == "resnet10" and self.norm != "batch" and self.image_size <= 32:
            what = f"{self.image_size} pixels leave the last block one, which an instance norm erases"
            raise UserError(what, "config.model.image_size", "take more than 32")
        if self.network == "vit" and self.image_size % self.patch:
            what = f"patches of {self.patch} do not tile {self.image_size} pixels"
            raise UserError(what, "config.model.patch", "take a divisor of image_size")
        if self.network == "vit" and self.width % self.heads:
            raise UserError(f"{self.heads} heads do not divide the width {self.width}", "config.model.heads")

    @classmethod
    def from_config(cls, section: Any, classes: int) -> "FlorConfig":
        """Reads `config.model`.

        Args:
          section: a ConfigDict with fields of this class except `classes`; what it lacks has the value given here.
          classes: of the base training.

        Raises:
          UserError: naming the field that makes no sense.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"classes"}
        values = {name: section[name] for name in section if name in names}
        for name in ("beta", "widths"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(classes=classes, **values)

    @property
    def feature_width(self) -> int:
        """Width D of a feature."""
        return self.widths[-1] if self.network == "resnet10" else self.width

    @property
    def norm_layers(self) -> int:
        """Number L of norms, and of values in `mix`."""
        return RESNET_NORMS if self.network == "resnet10" else 2 * self.layers + 1

    @property
    def mean_weight(self) -> float:
        """Mean weight a/(a+b) of the norm of one image."""
        return self.beta[0] / sum(self.beta)

    @property
    def mean_mix(self) -> float:
        """The θ at which σ(θ) is the mean weight; fine-tuning begins there."""
        return math.log(self.beta[0] / self.beta[1])
