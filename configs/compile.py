r"""What fits on which TPU slice, found out without one: compiles the functions of training, and counts.

    python -m evads_jax.main --config=configs/compile.py:model=qwen3_vl_8b,topology=v5p:2x2x4,mesh=fsdp:4-tp:4

needs the extra `tpu` (its libtpu holds the compiler) and any Linux machine; minutes per function. Prints HBM per
device of each function beside the device's, and FLOPs and bytes counted from the model. Exit code 1 if something does
not fit, with the compiler's own line. `lora=16` trains adapters; `layers=2` cuts both stacks to a quick try.

    python -m evads_jax.main --config=configs/compile.py:sweep --workdir=docs/tpu_memory \
        --config.page=docs/tpu_memory.md

compiles every cell of docs/tpu_memory.md that is not yet in the folder (hours; --config.only=v6e for some) and writes
the page from those that are there.
"""

import runpy
from pathlib import Path

import ml_collections
from ml_collections import config_dict

from evads_jax.errors import UserError

placeholder = config_dict.placeholder

VARIANTS = ("sweep",)

_VISION_8B = {
    "vision_width": 1152, "vision_layers": 27, "vision_heads": 16, "vision_mlp_width": 4304, "vision_patch": 16,
    "vision_temporal_patch": 2, "vision_merge": 2, "vision_position_grid": 48, "vision_deepstack": (8, 16, 24),
}  # fmt: skip
_QWEN3 = {
    "family": "qwen3_vl", "kv_heads": 8, "head_width": 128, "rope_theta": 5e6, "mrope_sections": (24, 20, 20),
    "tie_embeddings": False, "vocabulary": 151936, "dtype": "bfloat16", "attention": "splash", "scan_layers": True,
    "remat": True, "logit_chunk": 1024,
}  # fmt: skip
# Sizes as in the checkpoints' config.json.
MODELS = {
    "qwen3_vl_8b": _QWEN3 | _VISION_8B | {"width": 4096, "layers": 36, "heads": 32, "mlp_width": 12288},
    "qwen3_vl_32b": _QWEN3 | _VISION_8B | {"width": 5120, "layers": 64, "heads": 64, "mlp_width": 25600},
    "qwen2_5_vl_7b": _QWEN3 | {
        "family": "qwen2_5_vl", "width": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "mlp_width": 18944,
        "vocabulary": 152064, "rope_theta": 1e6, "mrope_sections": (16, 24, 24), "vision_width": 1280,
        "vision_layers": 32, "vision_heads": 16, "vision_mlp_width": 3420, "vision_patch": 14,
        "vision_temporal_patch": 2, "vision_merge": 2, "vision_window": 112, "vision_full_attention": (7, 15, 23, 31),
    },
    "tiny": _QWEN3 | {
        "width": 256, "layers": 2, "heads": 4, "kv_heads": 2, "mlp_width": 512, "vocabulary": 1024,
        "vision_width": 128, "vision_layers": 2, "vision_heads": 2, "vision_mlp_width": 256, "vision_patch": 8,
        "vision_temporal_patch": 2, "vision_merge": 2, "vision_position_grid": 8, "vision_deepstack": (0,),
    },
}  # fmt: skip


def get_config(variant: str = "model=qwen3_vl_8b,topology=v5p:2x2x4,mesh=fsdp:4-tp:4") -> ml_collections.ConfigDict:
    if variant == "sweep":
        return _sweep()
    options = dict(part.partition("=")[::2] for part in variant.split(","))
    where = "configs/compile.py"
    if unknown := options.keys() - {"model", "topology", "mesh", "lora", "layers"}:
        raise UserError(f"unknown option {sorted(unknown)[0]!r}", where, "of model, topology, mesh, lora, layers")
    if options.get("model", "qwen3_vl_8b") not in MODELS:
        raise UserError(f"unknown model {options['model']!r}", where, "one of " + ", ".join(MODELS))
    for number in ("lora", "layers"):
        if not options.get(number, "0").isdigit():
            raise UserError(f"no number: {number}={options[number]}", where, f"write e.g. {number}=16")
    name = options.get("model", "qwen3_vl_8b")

    base = runpy.run_path(str(Path(__file__).with_name("mg_grpo.py")))["get_config"]()
    config = ml_collections.ConfigDict()
    config.job = "compile"
    config.name = name
    config.topology = options.get("topology", "v5p:2x2x4")  # chip:shape
    config.model = ml_collections.ConfigDict(MODELS[name])
    if layers := options.get("layers"):
        config.model.layers, config.model.vision_layers = int(layers), int(layers)
        config.model.update({k: (0,) for k in ("vision_deepstack", "vision_full_attention") if k in config.model})
    config.mesh = _mesh(options.get("mesh", "fsdp:16"), where)

    config.train = base.train
    config.lora = base.lora
    config.lora.rank = int(options.get("lora", 0))
    config.rl = base.rl  # loss, optimizer and split of an update, as in configs/mg_grpo.py, but:
    config.rl.group = 8
    config.rl.max_new_tokens = 512
    # All 8 samples of a group at one time: in parts, sums of gradients (of parameters, and of the prompt's keys and
    # values in float32) would take more than the activations of so few tokens do.
    config.rl.micro_samples = None

    data = config.data = ml_collections.ConfigDict()
    data.groups_per_shard = 1  # prompts on each device of data · fsdp
    data.prompt_tokens = 8192
    data.units = 30  # temporal units of a prompt: 7,680 of its tokens are video …
    data.patches = 1024  # … of as many patches each, 30,720 together

    # Of update, logprobs, prefill, decode, rollout (prefill and decode in one program, as evaluation runs them).
    config.functions = ("update", "prefill", "decode")
    return config


def _mesh(text: str, where: str) -> ml_collections.ConfigDict:
    sizes = {"data": 1, "fsdp": 1, "tp": 1}
    for part in text.split("-"):
        axis, _, size = part.partition(":")
        if axis not in sizes or not size.isdigit() or size == "0":
            raise UserError(f"cannot read the mesh {text!r}", where, "write e.g. mesh=fsdp:4-tp:4")
        sizes[axis] = int(size)
    return ml_collections.ConfigDict(sizes)


def _sweep() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "compile_sweep"
    config.page = placeholder(str)  # where the page is written; default W/tpu_memory.md
    config.only = ""  # compiles only cells whose name contains this; the page is made of all that are there
    config.models = ("qwen2_5_vl_7b", "qwen3_vl_8b", "qwen3_vl_32b")
    config.lora = (0, 16)  # 0: full fine-tune
    config.slices = (
        ("v5e:2x2", ("fsdp:4", "tp:4")),
        ("v5e:2x4", ("fsdp:8", "fsdp:2-tp:4")),
        ("v5e:4x4", ("fsdp:16", "fsdp:4-tp:4")),
        ("v5e:8x8", ("fsdp:64", "fsdp:16-tp:4")),
        ("v5p:2x2x1", ("fsdp:4", "tp:4")),
        ("v5p:2x2x2", ("fsdp:8", "fsdp:2-tp:4")),
        ("v5p:2x2x4", ("fsdp:16", "fsdp:4-tp:4")),
        ("v6e:1x1", ("fsdp:1",)),
        ("v6e:2x2", ("fsdp:4", "tp:4")),
        ("v6e:2x4", ("fsdp:8", "fsdp:2-tp:4")),
        ("v6e:4x4", ("fsdp:16", "fsdp:4-tp:4")),
        ("v6e:8x8", ("fsdp:64", "fsdp:16-tp:4")),
        ("tpu7x:2x2x1", ("fsdp:8", "fsdp:2-tp:4")),
        ("tpu7x:2x2x2", ("fsdp:16", "fsdp:4-tp:4")),
    )
    return config
