"""The job `compile_sweep`: every cell of the memory table by the job `compile`, and the page made of them.

A cell is a model, a way of training, a slice and a mesh; it runs in a process of its own and leaves one JSON file, so a
sweep that was stopped goes on where it was. Cells whose lower bound is above the chip's memory are not compiled.
"""

import collections
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from evads_jax import whole
from evads_jax.models import partitioning
from evads_jax.train import compile
from evads_jax.train.compile_functions import Functions

Cell = dict[str, str]
GIB = compile.GIB


def run(config: ConfigDict, workdir: Path) -> None:
    """Compiles the cells that are missing and match `config.only`, and writes the page.

    Args:
      config: see configs/compile.py, variant `sweep`.
      workdir: where the cells are kept.
    """
    jax.config.update("jax_platforms", "cpu")  # counting bounds in here must not take libtpu, which has room for one
    workdir.mkdir(parents=True, exist_ok=True)
    bounds = _bounds(config, workdir / "bounds.json")
    for cell in cells(config):
        name = name_of(cell)
        bound, limit = bounds[name]
        if bound > limit or path_of(workdir, cell).exists() or config.only not in name:
            continue
        print(name, flush=True)
        folder = workdir / "running" / name
        shutil.rmtree(folder, ignore_errors=True)  # left by a sweep that was stopped
        command = [sys.executable, "-m", "evads_jax.main", f"--config={_variant(cell)}", f"--workdir={folder}"]
        done = subprocess.run(command, check=False)
        if done.returncode in (0, compile.EXIT_DOES_NOT_FIT) and (folder / "cell.json").exists():
            (folder / "cell.json").replace(path_of(workdir, cell))
        else:
            print(f"{name}: ended with {done.returncode}, it is tried again at the next call", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    target = Path(config.page) if config.page else workdir / "tpu_memory.md"
    whole.write(target, page(config, workdir, bounds))
    print(target)


def cells(config: ConfigDict) -> list[Cell]:
    """All cells of the table, in its order."""
    return [
        {"model": model, "lora": str(rank), "topology": topology, "mesh": mesh}
        for model in config.models
        for rank in config.lora
        for topology, meshes in config.slices
        for mesh in meshes
    ]


def name_of(cell: Cell) -> str:
    """A cell's name, also of its file."""
    way = f"lora{cell['lora']}" if cell["lora"] != "0" else "full"
    return f"{cell['model']}_{way}_{cell['topology']}_{cell['mesh']}".replace(":", "")


def path_of(workdir: Path, cell: Cell) -> Path:
    """Where a cell is kept."""
    return workdir / f"{name_of(cell)}.json"


def page(config: ConfigDict, workdir: Path, bounds: Mapping[str, Sequence[int]]) -> str:
    """The page, from the cells that are there.

    Args:
      config: the sweep.
      workdir: where the cells are kept.
      bounds: lower bound of each cell and memory of its device, in bytes, by name.
    """
    everything = cells(config)
    found = {
        name_of(c): json.loads(path_of(workdir, c).read_text()) for c in everything if path_of(workdir, c).exists()
    }
    lines = [
        "# What fits on which TPU slice", "",
        "Written by `python -m evads_jax.main --config=configs/compile.py:sweep --workdir=docs/tpu_memory "
        "--config.page=docs/tpu_memory.md`. Nothing ran on a TPU; what a compiled cell needs is what the TPU compiler "
        "says.", "",
        f"**{len(found)} of {len(everything)} cells were compiled so far.** «Bound» is counted, not compiled: the "
        "resident set (float32 parameters and two moments, bfloat16 reference; with LoRA the frozen bfloat16 model and "
        "adapters) "
        "with gradients or keys and values. Above the device's memory, the cell is ruled out without compiling; below "
        "it, and not compiled, nothing is known.", "",
        "One group of G = 8 completions of 512 tokens per data · fsdp shard, prompts of 8,192 tokens of which 7,680 "
        "are video (30,720 patches). GiB per device (a tpu7x chip has two): bound, what stays resident, and the whole "
        "need of update / prefill / decode: arguments, outputs and temporaries as the compiler has placed them, the "
        "program, and what stays resident beside it. The compiler takes what it believes to have; an update that took "
        "too much was compiled again and told how much there is, the MiB in brackets, which `config.rl.update_hbm_mib` "
        "tells it in a run.", "",
        *_made(found.values()),
    ]  # fmt: skip
    for model in config.models:
        for rank in config.lora:
            rows = [c for c in everything if (c["model"], c["lora"]) == (model, str(rank))]
            lines += [f"## {model}, {'LoRA ' + str(rank) if rank else 'full fine-tune'}", ""]
            lines += [_smallest(rows, found), ""]
            lines += ["| slice | mesh | device | bound | resident | update / prefill / decode | |"]
            lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
            lines += [_row(cell, found, bounds) for cell in rows] + [""]
    return "\n".join(lines)


def _made(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """By what the compiled cells were made."""
    counts = collections.Counter(tuple(cell["made"].items()) for cell in found)
    told = []
    for made, count in sorted(counts.items()):
        by = dict(made)
        told.append(
            f"{count} on {by['date']} at {by['commit']}, libtpu {by['libtpu']}, jax {by['jax']}, "
            f"{by['cores']} core(s) of {by['processor']}"
        )
    return ["Cells: " + "; ".join(told) + ".", ""] if told else []


def _row(cell: Cell, found: Mapping[str, Any], bounds: Mapping[str, Sequence[int]]) -> str:
    name = name_of(cell)
    made = found.get(name)
    bound, limit = bounds[name]
    resident, needs, verdict = "", "", "not compiled"
    if made:
        resident = f"{made['resident']['total'] / GIB:.1f}"
        parts = [f"{f['total'] / GIB:.1f}" if "total" in f else "—" for f in made["functions"].values()]
        needs = " / ".join(parts)
        errors = [f"{function}: {f['error']}" for function, f in made["functions"].items() if not f["fits"]]
        verdict = "fits" if made["fits"] else errors[0]
        plan = made["functions"].get("update", {}).get("planned")
        verdict += f" (`rl.update_hbm_mib` {plan:,})" if plan else ""
    elif bound > limit:
        verdict = "ruled out"
    device, least = f"{limit / GIB:.1f}", f"{bound / GIB:.1f}"
    return f"| {cell['topology']} | {cell['mesh']} | {device} | {least} | {resident} | {needs} | {verdict} |"


def _smallest(rows: list[Cell], found: Mapping[str, Any]) -> str:
    """The smallest slice of each chip on which a compiled cell fits."""
    best: dict[str, Cell] = {}
    for cell in rows:  # slices of a chip stand in the order of their size
        made = found.get(name_of(cell))
        if made and made["fits"]:
            best.setdefault(cell["topology"].partition(":")[0], cell)
    if not best:
        return "No compiled cell fits so far."
    return "Smallest slice on which a compiled cell fits: " + ", ".join(
        f"{cell['topology']} ({cell['mesh']})" for cell in best.values()
    )


def _variant(cell: Cell) -> str:
    options = ",".join(f"{key}={value}" for key, value in cell.items())
    return f"{Path(__file__).parents[2] / 'configs' / 'compile.py'}:{options}"


def _bounds(config: ConfigDict, path: Path) -> dict[str, list[int]]:
    """Lower bound and device memory of every cell, kept in a file: counting all of them takes minutes."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for cell in cells(config):
        if name_of(cell) not in known:
            known[name_of(cell)] = _bound(cell)
            whole.write(path, json.dumps(known, indent=1) + "\n")
    return known


def _bound(cell: Cell) -> list[int]:
    path, _, variant = _variant(cell).partition(":")
    config = runpy.run_path(path)["get_config"](variant)
    axes = partitioning.MESH_AXES
    mesh = jax.sharding.AbstractMesh(tuple(config.mesh[axis] for axis in axes), axes)
    counted = compile.count(config, Functions(config, mesh))
    return [counted["lower_bound"], counted["hbm"]]
