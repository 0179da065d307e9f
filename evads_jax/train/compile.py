"""The job `compile`: whether a job's functions fit on a TPU slice, asked of the TPU compiler on any machine.

Nothing of the model's size is made: arguments are shapes with shardings on the devices of a topology that is only
described. The resident set that is no argument of a function (the reference, the moments while it samples) is added
to what the compiler counts.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from evads_jax import whole
from evads_jax import workdir as run_folder
from evads_jax.errors import UserError
from evads_jax.models import partitioning
from evads_jax.models.qwen_vl import parameter_count
from evads_jax.rl import settings
from evads_jax.train import compile_count
from evads_jax.train.compile_count import Work
from evads_jax.train.compile_functions import FUNCTIONS, Functions
from evads_jax.train.planned import planned

EXIT_DOES_NOT_FIT = 1
GIB, MIB = 2.0**30, 2.0**20
# GiB of each device's memory that a program may use, as the compiler says when it runs out. A tpu7x chip is two
# devices, each with its own half.
HBM = {"v5e": 15.75, "v5p": 95.74, "v6e": 31.25, "tpu7x": 94.75}


def run(config: ConfigDict, workdir: Path | None = None) -> None:
    """Compiles and counts what `config` describes, and prints it; with a work directory, keeps it in `cell.json`.

    Args:
      config: see configs/compile.py.
      workdir: where `cell.json` is written.

    Raises:
      UserError: no libtpu, or a model, mesh or topology that cannot be.
      SystemExit: with `EXIT_DOES_NOT_FIT`, something does not fit.
    """
    check(config)
    functions = _functions(config)
    cell = {"made": _made()} | count(config, functions) | {"functions": {}}
    print(_head(config, cell), flush=True)
    for name in config.functions:
        cell["functions"][name] = found = _compiled(functions, name, cell)
        print(_line(name, found, cell), flush=True)
    fits = all(found["fits"] for found in cell["functions"].values())
    cell["fits"] = fits
    if workdir is not None:
        whole.write(workdir / "cell.json", json.dumps(cell, indent=1) + "\n")
    if not fits:
        raise SystemExit(EXIT_DOES_NOT_FIT)


def check(config: ConfigDict) -> None:
    """Refuses what cannot be, before anything is compiled.

    Raises:
      UserError: naming the field.
    """
    chip = config.topology.partition(":")[0]
    if chip not in HBM:
        raise UserError(f"unknown chip {chip!r}", "config.topology", "one of " + ", ".join(HBM))
    if unknown := [name for name in config.functions if name not in FUNCTIONS]:
        raise UserError(f"unknown function {unknown[0]!r}", "config.functions", "of " + ", ".join(FUNCTIONS))
    partitioning.check_heads(config.mesh.tp, config.model.heads)
    settings.check_mesh(config.rl, config.mesh)


def count(config: ConfigDict, functions: Functions) -> dict[str, Any]:
    """Everything that is known of a cell without compiling, in bytes per device and FLOPs over all devices."""
    data, mesh, rl = config.data, config.mesh, config.rl
    B = data.groups_per_shard * mesh.data * mesh.fsdp
    work = Work(B, rl.group, data.prompt_tokens, rl.max_new_tokens, data.units, data.patches)
    vision = not config.train.freeze_vision
    trained = {"text": True, "merger": vision, "tower": vision}
    if config.lora.rank:
        groups = tuple(config.lora.groups)
        trained = {"text": "text" in groups, "merger": "merger" in groups, "tower": "vision" in groups}
    held = compile_count.resident(functions)
    cache = compile_count.cache_bytes(functions.model, work, mesh.data * mesh.fsdp, mesh.tp)
    return {
        "model": config.name,
        "topology": config.topology,
        "mesh": {axis: mesh[axis] for axis in partitioning.MESH_AXES},
        "lora": config.lora.rank,
        "parameters": parameter_count(functions.model),
        "kv_heads_whole": bool(functions.model.kv_heads % mesh.tp),
        "work": vars(work),
        "hbm": round(HBM[config.topology.partition(":")[0]] * GIB),
        "resident": vars(held) | {"total": held.total},
        "beside": {name: held.beside(name) for name in FUNCTIONS},
        "cache": cache,
        "lower_bound": compile_count.lower_bound(held, cache),
        "flops": compile_count.flops(functions.model, work, trained, bool(config.lora.rank)),
        "bytes": compile_count.moved_bytes(functions, work, cache, mesh.tp),
    }


def _made() -> dict[str, Any]:
    """By what a cell is made: the next compiler may count otherwise, and the next commit may ask it for other code."""
    where = run_folder.environment()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "libtpu": importlib.metadata.version("libtpu"),
        **{name: where[name] for name in ("commit", "jax", "processor", "cores")},
    }


def _functions(config: ConfigDict) -> Functions:
    """The job's functions on the described slice."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed", "libtpu", "pip install 'evads_jax[tpu]'")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it need not ask which machine it is on
    jax.config.update("jax_platforms", "cpu")
    # It takes hosts for ones of four chips or more; the slices of one chip are machines of one.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if config.topology.endswith(":1x1") else {}
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=config.topology, **alone)
    except jax.errors.JaxRuntimeError as error:
        what = f"there is no slice {config.topology!r}"
        raise UserError(what, "config.topology", str(error).split("\n")[0][:200]) from error
    data, fsdp, tp = (config.mesh[axis] for axis in partitioning.MESH_AXES)
    devices = topology.devices
    if len(devices) != data * fsdp * tp:
        what = f"a mesh of data {data} × fsdp {fsdp} × tp {tp}"
        raise UserError(f"{what} does not fill the {len(devices)} devices of {config.topology}", "config.mesh")
    return Functions(config, partitioning.make_mesh(data, fsdp, tp, devices))


def _compiled(functions: Functions, name: str, cell: dict[str, Any]) -> dict[str, Any]:
    """What the compiler says of one function; of an update that takes too much, once more, told how much there is.

    The compiler takes what it believes to have, and it does not know what stays in memory beside a program.
    """
    lowered, beside, hbm = functions.lower(name), cell["beside"][name], cell["hbm"]
    found = _attempt(lowered, None, beside, hbm)
    if found["fits"] or "total" not in found or name != "update":
        return found  # what cannot run in all of the memory cannot in less
    told = _attempt(lowered, int((hbm - beside) / MIB), beside, hbm)
    return told if told["fits"] else found


def _attempt(lowered: jax.stages.Lowered, plan: int | None, beside: int, hbm: int) -> dict[str, Any]:
    """A function compiled for `plan` MiB of a device (None: all of it): what it takes there, or why it cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            compiled = lowered.compile(compiler_options={**(planned(plan) or {}), "xla_dump_to": folder})
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return {"fits": False, "error": out_of_memory_line(str(error))}
        memory, assigned = compiled.memory_analysis(), _assigned(Path(folder))
    if memory is None:
        raise RuntimeError("the compiler gave no memory analysis")
    return _counted(memory, assigned, beside, hbm) | {"planned": plan}


def _assigned(dump: Path) -> int:
    """Bytes of a device's memory that a program's arguments, outputs and temporaries have places in.

    From the compiler's report of its buffer assignment, by which it also decides whether a program fits. The
    temporaries of `memory_analysis` are more (by half, in the update of an 8B model): those must not be added up.
    """
    (report,) = dump.glob("*memory-usage-report.txt")
    found = re.search(r"Memory Space: default .*\nTotal bytes: (\d+)", report.read_text())
    if found is None:
        raise RuntimeError(f"the compiler's report has another form than was known: {report.name}")
    return int(found[1])


def _counted(memory: Any, assigned: int, beside: int, hbm: int) -> dict[str, Any]:
    """A compiled function's memory in bytes per device, and whether it has that much."""
    arguments = memory.argument_size_in_bytes
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    parts = {
        "arguments": arguments,
        "outputs": outputs,
        "temporaries": assigned - arguments - outputs,
        "code": memory.generated_code_size_in_bytes,
        "beside": beside,
    }
    total = sum(parts.values())
    found = parts | {"total": total, "live": memory.peak_memory_in_bytes, "fits": total <= hbm}
    if not found["fits"]:
        found["error"] = f"with the {beside / GIB:.2f} GiB that stay beside it, it needs {total / GIB:.2f} GiB"
    return found


def out_of_memory_line(message: str) -> str:
    """The line of a compiler's message that says what was too much."""
    lines = [line.strip() for line in message.splitlines()]
    telling = [line for line in lines if re.search(r"(?i)ran out of memory|exceeds|exceeded", line)]
    return (telling or lines)[0]


def _head(config: ConfigDict, cell: dict[str, Any]) -> str:
    work, held, gib = cell["work"], cell["resident"], GIB
    kind = f"LoRA {cell['lora']}" if cell["lora"] else "full fine-tune"
    mesh = " · ".join(f"{axis} {size}" for axis, size in cell["mesh"].items() if size > 1) or "one device"
    lines = [
        f"{cell['model']} ({cell['parameters'] / 1e9:.2f} B parameters), {kind}, on {cell['topology']} as {mesh}",
        f"B {work['B']} prompts (one group per data · fsdp shard) of {work['T']:,} tokens, "
        f"{work['units'] * work['patches']:,} patches; G {work['G']} completions of {work['S']} tokens",
        f"per device, of {cell['hbm'] / gib:.2f} GiB: trained {held['trained'] / gib:.2f}, moments "
        f"{held['moments'] / gib:.2f}, frozen {held['frozen'] / gib:.2f}, reference {held['reference'] / gib:.2f}, "
        f"keys and values {cell['cache'] / gib:.2f} GiB",
    ]
    if cell["kv_heads_whole"]:
        tp, heads = cell["mesh"]["tp"], config.model.kv_heads
        lines.append(f"tp {tp} does not divide the {heads} key/value heads: every device of tp holds all of them")
    return "\n".join(lines)


def _line(name: str, found: dict[str, Any], cell: dict[str, Any]) -> str:
    devices = math.prod(cell["mesh"].values())
    counted = f"{cell['flops'][name] / devices / 1e12:,.3g} TFLOP, {cell['bytes'][name] / 1e9:,.3g} GB moved"
    if "total" not in found:
        return f"{name:8s} {found['error']} ({counted})"
    parts = ", ".join(
        f"{part} {found[part] / GIB:.2f}" for part in ("arguments", "outputs", "temporaries", "code", "beside")
    )
    verdict = "fits" if found["fits"] else "DOES NOT FIT: " + found["error"]
    verdict += f" (config.rl.update_hbm_mib={found['planned']})" if found["planned"] else ""
    return f"{name:8s} {found['total'] / GIB:6.2f} GiB ({parts}); {counted}; {verdict}"
