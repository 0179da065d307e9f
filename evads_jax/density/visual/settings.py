"""What the paper leaves open in V_den, as fields with a stated default."""

import dataclasses
import math
from typing import Literal

from evads_jax.errors import UserError

CHOICES = {
    "per": ("frames", "seconds"),
    "unit": ("frames", "seconds"),
    "weights": ("uniform", "triangular", "gaussian"),
    "weighting": ("sampled", "integral"),
}


@dataclasses.dataclass(frozen=True)
class VisualSettings:
    """The formula `V_den = α · (1/T) · Σ_i (1 − S̄_i)` made definite.

    The paper gives the formula and the features; every field here is open in it and the default is our choice.

    Attributes:
        alpha: the scale α; 100 puts values where the published ones lie.
        per: what T counts. "frames" makes the sum a mean over frames, which does not grow with the frame rate;
            "seconds" divides by the duration. The integral form is a mean over time and reads neither.
        radius: how far the neighbourhood of a frame reaches, in `unit`.
        unit: "seconds" keeps the neighbourhood the same at every frame rate; "frames" counts distinct times.
        weights: shape over the lag. Triangular falls to 0 at the radius (for frames: at radius + 1, so that the
            outermost frame still counts); Gaussian has its deviation at half the radius and is cut at the radius.
        weighting: "sampled" weighs frame pairs by the lag of their times, as the formula reads. "integral" lets
            every frame last until the next one and integrates the weight over both spans, so that the value does
            not depend on how often a lasting picture was sampled.

    Raises:
        UserError: a field is not one of its choices, or a number is not positive.
    """

    alpha: float = 100.0
    per: Literal["frames", "seconds"] = "frames"
    radius: float = 2.0
    unit: Literal["frames", "seconds"] = "seconds"
    weights: Literal["uniform", "triangular", "gaussian"] = "triangular"
    weighting: Literal["sampled", "integral"] = "sampled"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                field = "shape" if name == "weights" else name
                raise UserError(
                    f"{field} is {getattr(self, name)!r}", f"config.visual.{field}", "one of " + ", ".join(choices)
                )
        for name in ("alpha", "radius"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}, not a positive number", f"config.visual.{name}")
        if self.weighting == "integral" and self.unit == "frames":
            raise UserError("the integral form has its radius in seconds", "config.visual.unit", "set it to seconds")
        if self.unit == "frames" and self.radius != int(self.radius):
            raise UserError(f"a radius of {self.radius} frames", "config.visual.radius", "give a whole number")

    @property
    def rule(self) -> str:
        """The choices in one line, as tables print them."""
        span = "" if self.weighting == "integral" else f", per {self.per}"
        return f"{self.weighting} {self.weights} ±{self.radius:g} {self.unit}, α {self.alpha:g}{span}"
