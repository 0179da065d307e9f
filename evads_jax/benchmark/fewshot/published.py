"""The accuracies that the FLoR paper publishes (CVPR 2024, arXiv 2403.00567), to put measured ones beside.

5-way, 15 queries a class, 16,000 episodes, base training on miniImageNet at 224 pixels. The released code chooses the
step on each target's test split; this project does not.
"""

from typing import NamedTuple

# The paper's names of its targets → the sets that hold them here (`data.fewshot.prepare`).
DATASETS = {
    "CropDiseases": "plant_village",
    "EuroSAT": "eurosat",
    "ISIC": "isic",
    "ChestX": "chestx",
}


class Published(NamedTuple):
    """One row: accuracies in % on CropDiseases, EuroSAT, ISIC and ChestX."""

    network: str
    method: str
    shots: int
    accuracies: tuple[float, float, float, float]


PUBLISHED = (
    Published("ResNet10", "prototypes", 1, (73.64, 62.90, 38.11, 23.11)),
    Published("ResNet10", "prototypes", 5, (91.25, 80.87, 51.44, 26.70)),
    Published("ResNet10", "finetuned", 1, (84.04, 69.13, 38.81, 23.12)),
    Published("ResNet10", "finetuned", 5, (92.33, 83.06, 56.74, 26.77)),
    Published("ResNet10", "transductive", 1, (86.30, 71.38, 41.67, 23.12)),
    Published("ResNet10", "transductive", 5, (93.60, 83.76, 57.54, 26.89)),
    Published("ViT-S", "prototypes", 1, (81.81, 72.39, 34.20, 22.78)),
    Published("ViT-S", "prototypes", 5, (95.28, 90.41, 49.52, 26.71)),
    Published("ViT-S", "finetuned", 1, (83.55, 73.09, 35.49, 23.26)),
    Published("ViT-S", "finetuned", 5, (96.47, 90.75, 53.06, 27.02)),
)
