"""The densities that the E-VAds paper publishes (arXiv 2602.08355), to put a corpus beside."""

from typing import NamedTuple


class Published(NamedTuple):
    """One published benchmark: V_den, and words a second heard and read."""

    name: str
    v: float
    a: float
    o: float


PUBLISHED = (
    Published("VideoMME-short", 31.65, 1.16, 4.32),
    Published("MVBench", 20.69, 2.46, 3.45),
    Published("ActivityNetQA", 29.69, 2.77, 2.98),
    Published("EgoSchema", 25.76, 0.00, 4.24),
    Published("AdsQA", 50.13, 0.85, 5.05),
    Published("VideoAds", 50.72, 1.40, 4.02),
    Published("E-VAds", 60.44, 5.08, 18.66),
)
