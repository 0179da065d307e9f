"""Writes tests/models/qwen_vl/golden with torch and transformers; run from the root of the repository.

    python -m tests.models.qwen_vl.make_golden

With transformers 5: per family a folder with a checkpoint (config.json, model.safetensors) and expected.npz with its
logits, gradients, positions and greedy tokens. With transformers 4.57.6: positions_4.57.6.npz, the positions that it
gives the same inputs; nothing else of version 4 is needed.
"""

import types

import numpy as np
import torch
import transformers

from . import cases


def main() -> None:
    """Writes the files of the installed version."""
    if transformers.__version__.startswith("4."):
        name = f"positions_{transformers.__version__}.npz"
        np.savez_compressed(cases.GOLDEN / name, **positions_of_version_4())
        return
    from .oracle import Oracle

    for family in cases.FAMILIES:
        oracle = Oracle(family)
        oracle.save(cases.GOLDEN / family)
        np.savez_compressed(cases.GOLDEN / family / "expected.npz", **expected(oracle))


def expected(oracle) -> dict[str, np.ndarray]:
    """What `test_golden` compares with, by kind and input."""
    found = {f"gradient/{name}": tensor for name, tensor in oracle.gradient(oracle.cases).items()}
    with torch.no_grad():
        for name, case in zip(cases.CASES, oracle.cases, strict=True):
            found[f"logits/{name}"] = oracle.logits(case)
            found[f"greedy/{name}"] = oracle.greedy(case).to(torch.int16)
            found[f"positions/{name}"] = oracle.positions(case, "release").to(torch.int16)
            if oracle.family == "qwen2_5_vl":
                found[f"logits_5/{name}"] = oracle.logits(case, "transformers_5")
                found[f"positions_5/{name}"] = oracle.positions(case, "transformers_5").to(torch.int16)
        tied = type(oracle)(oracle.family, tied=True)
        for name, case in zip(cases.CASES, tied.cases, strict=True):
            found[f"logits_tied/{name}"] = tied.logits(case)
    return {name: tensor.numpy() for name, tensor in found.items()}


def positions_of_version_4() -> dict[str, np.ndarray]:
    """Positions [n, 3] of each family and input, and of the token that follows."""
    ids = {"image_token_id": cases.IMAGE, "video_token_id": cases.VIDEO, "vision_start_token_id": cases.START}
    models = {
        "qwen3_vl": (transformers.Qwen3VLConfig, transformers.models.qwen3_vl.modeling_qwen3_vl.Qwen3VLModel),
        "qwen2_5_vl": (
            transformers.Qwen2_5_VLConfig,
            transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VLModel,
        ),
    }
    found = {}
    for family, (config, model) in models.items():
        asked = types.SimpleNamespace(config=config(vision_config={"tokens_per_second": 2}, **ids))
        for name in cases.CASES:
            case = cases.draw(name, family == "qwen3_vl")
            grids = {True: [], False: []}
            for count, size, seconds in case.shown:
                grids[seconds is None].append([count, *size])
            images, videos = (torch.tensor(grids[key]) if grids[key] else None for key in (True, False))
            tokens = torch.from_numpy(case.ids)[None]
            seconds = [seconds for *_, seconds in case.shown if seconds is not None]
            extra = {"second_per_grid_ts": torch.tensor(seconds)} if family == "qwen2_5_vl" and seconds else {}
            positions, delta = model.get_rope_index(asked, tokens, images, videos, **extra)
            found[f"{family}/{name}"] = positions[:, 0].T.numpy().astype(np.int16)
            found[f"{family}/{name}/next"] = np.int16(delta.item() + len(case.ids))
    return found


if __name__ == "__main__":
    main()
