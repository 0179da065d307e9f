"""Writes tests/models/cope/golden with torch and transformers: `python tests/models/cope/make_golden.py`.

Tiny models whose every part matters: an X-CLIP (frames with messages, multi-frame integration) with, for what a plain
CLIP makes of the same weights, its tensors without those of X-CLIP; and a BERT of three layers, of which two are used.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XCLIPConfig,
    XCLIPModel,
)

from evads_jax.models.cope.visual import DEVIATION, MEAN

GOLDEN = Path(__file__).parent / "golden"
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
MIT = {"mit_hidden_size": 8, "mit_intermediate_size": 32, "mit_num_hidden_layers": 2, "mit_num_attention_heads": 2}
UNUSED_TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
               "vocab_size": 10, "bos_token_id": 0, "eos_token_id": 2}  # fmt: skip
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
        "vocab_size": 30, "max_position_embeddings": 9}  # fmt: skip


def redrawn(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The model in evaluation, every parameter drawn anew at a scale at which none can be missed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            table = parameter.ndim < 2 or ("embedding" in name and "patch" not in name)
            inputs = 4 if table else parameter[0].numel()
            centre = 1.0 if "norm" in name.lower() or "_ln" in name else 0.0
            centre = centre if name.endswith("weight") and parameter.ndim == 1 else 0.0
            parameter.copy_(centre + inputs**-0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def xclip(frames: int, seed: int = 0, mit: dict = MIT, **vision) -> XCLIPModel:
    sizes = {**vision, **mit, "num_frames": frames}
    config = XCLIPConfig(text_config=UNUSED_TEXT, vision_config=sizes, projection_dim=mit["mit_hidden_size"])
    return redrawn(XCLIPModel(config), seed)


def with_frames(model: XCLIPModel, frames: int) -> XCLIPModel:
    """The same weights for clips of so many frames, their first positions."""
    config = type(model.config)(**model.config.to_dict())
    config.vision_config.num_frames = frames
    shorter = XCLIPModel(config).eval()
    weights = model.state_dict()
    weights["mit.position_embedding"] = weights["mit.position_embedding"][:, :frames]
    shorter.load_state_dict(weights)
    return shorter


def clip(model: XCLIPModel) -> CLIPVisionModelWithProjection:
    """The CLIP that an X-CLIP's weights hold."""
    fields = {name: getattr(model.config.vision_config, name) for name in (*VISION, "hidden_act")}
    plain = CLIPVisionModelWithProjection(CLIPVisionConfig(**fields, projection_dim=model.config.projection_dim))
    names = {name: name.replace("pre_layrnorm", "pre_layernorm") for name in plain.state_dict()}
    weights = model.state_dict()
    plain.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    return plain.eval()


def pixels(frames: np.ndarray) -> torch.Tensor:
    """8-bit clips [B, F, H, W, 3] as [B, F, 3, H, W], normalised."""
    return torch.from_numpy(((frames / np.float32(255) - MEAN) / DEVIATION).transpose(0, 1, 4, 2, 3).copy())


def video_features(model: XCLIPModel, frames: np.ndarray) -> np.ndarray:
    """What the multi-frame integration transformer makes of every frame [B, F, M]."""
    B, F = frames.shape[:2]
    with torch.no_grad():
        pooled = model.vision_model(pixels(frames).flatten(0, 1)).pooler_output
        projected = model.visual_projection(pooled).reshape(B, F, -1)
        return model.mit(projected).last_hidden_state.numpy()


def image_features(model: CLIPVisionModelWithProjection, frames: np.ndarray) -> np.ndarray:
    """CLIP's features of single frames [B · F, M]."""
    with torch.no_grad():
        return model(pixels(frames).flatten(0, 1)).image_embeds.numpy()


def bert(seed: int = 0, **sizes) -> BertModel:
    return redrawn(BertModel(BertConfig(**sizes)), seed)


def text_features(model: BertModel, layers: int, tokens: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden states after the first layers, and what the pooler makes of them."""
    kept = torch.nn.ModuleList(list(model.encoder.layer)[:layers])
    model.encoder.layer = kept
    mask = torch.arange(tokens.shape[1]) < torch.from_numpy(count)[:, None]
    with torch.no_grad():
        out = model(torch.from_numpy(tokens), attention_mask=mask.long())
    return {"states": out.last_hidden_state.numpy(), "pooled": out.pooler_output.numpy()}


def inputs(B: int, F: int, T: int, side: int, vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.integers(0, 256, (B, F, side, side, 3)).astype(np.uint8),
        "tokens": rng.integers(0, vocabulary, (B, T)),
        "token_count": rng.integers(1, T + 1, B),
    }


def main() -> None:
    video, text = xclip(3, **VISION), bert(**TEXT)
    for name, model in (("xclip", video), ("bert", text)):
        (GOLDEN / name).mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(GOLDEN / name)
    kept = {n: x for n, x in video.state_dict().items() if n.startswith(("vision_model", "visual_projection", "mit"))}
    save_file({n: x.contiguous() for n, x in kept.items()}, GOLDEN / "xclip" / "model.safetensors")
    save_file(text.state_dict(), GOLDEN / "bert" / "model.safetensors")
    given = inputs(2, 3, 6, 16, 30)
    expected = {
        "features_3": video_features(video, given["frames"]),
        "features_2": video_features(with_frames(video, 2), given["frames"][:, :2]),
        "image": image_features(clip(video), given["frames"]),
        **text_features(text, 2, given["tokens"], given["token_count"]),
    }
    np.savez_compressed(GOLDEN / "expected.npz", **given, **expected)


if __name__ == "__main__":
    main()
