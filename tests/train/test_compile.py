"""What is counted without a compiler, and one small case of what is asked of the TPU compiler where it is installed."""

import dataclasses
import importlib.util
import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.models import partitioning, qwen_vl
from evads_jax.models.qwen_vl.scoring import run_prompts
from evads_jax.train import compile, compile_count, compile_sweep
from evads_jax.train.compile_functions import Functions, bytes_per_device

ROOT = Path(__file__).parents[2]
CONFIGS = runpy.run_path(str(ROOT / "configs" / "compile.py"))
GIB = 2**30


def config(variant="model=tiny,topology=v5e:2x2,mesh=fsdp:2-tp:2", **changes):
    made = CONFIGS["get_config"](variant)
    made.data.update(prompt_tokens=256, units=2, patches=64)
    made.rl.update(group=2, max_new_tokens=16, micro_samples=None)
    made.update(changes)
    return made


def abstract_functions(made):
    mesh = jax.sharding.AbstractMesh(tuple(made.mesh[a] for a in partitioning.MESH_AXES), partitioning.MESH_AXES)
    return Functions(made, mesh)


@pytest.mark.parametrize(
    ("name", "billions"), [("qwen3_vl_8b", 8.767), ("qwen3_vl_32b", 33.357), ("qwen2_5_vl_7b", 8.292)]
)
def test_the_published_sizes_have_the_published_number_of_parameters(name, billions):
    model = qwen_vl.QwenVLConfig.from_config(CONFIGS["MODELS"][name], 0)
    assert qwen_vl.parameter_count(model) / 1e9 == pytest.approx(billions, abs=5e-4)


def test_a_full_fine_tune_holds_fourteen_bytes_a_parameter_on_all_devices_together():
    made = config("model=qwen3_vl_8b,mesh=fsdp:16")
    functions = abstract_functions(made)
    held, count = compile_count.resident(functions), qwen_vl.parameter_count(functions.model)
    # Norms and biases are whole on every device.
    assert held.trained * 16 == pytest.approx(4 * count, rel=0.01)
    assert held.moments * 16 == pytest.approx(8 * count, rel=0.01)
    assert held.reference * 16 == pytest.approx(2 * count, rel=0.01)  # in bfloat16: it is read and never trained
    assert held.frozen == 0
    assert held.total == held.trained + held.moments + held.reference


def test_without_a_kl_term_no_reference_is_held():
    made = config("model=qwen3_vl_8b,mesh=fsdp:16")
    made.rl.kl = "none"
    assert compile_count.resident(abstract_functions(made)).reference == 0


def test_tensor_and_data_parallel_devices_hold_what_the_rules_say():
    def trained(mesh):
        return compile_count.resident(abstract_functions(config(f"model=qwen3_vl_8b,mesh={mesh}"))).trained

    assert trained("fsdp:4-tp:4") == pytest.approx(trained("fsdp:16"), rel=0.02)
    assert trained("data:2-fsdp:8") == trained("fsdp:8")


def test_with_lora_the_model_is_frozen_in_bfloat16_and_the_optimizer_small():
    functions = abstract_functions(config("model=qwen3_vl_8b,mesh=fsdp:16,lora=16"))
    held, count = compile_count.resident(functions), qwen_vl.parameter_count(functions.model)
    # And, float32, the factors of SFT's adapter, which fsdp splits on one side only.
    assert 2 * count < held.frozen * 16 < 2.25 * count
    assert held.moments == pytest.approx(2 * held.trained, rel=1e-3)
    assert held.trained < held.frozen / 10


@pytest.mark.parametrize(("tp", "share"), [(1, 1), (4, 4), (16, 1)])
def test_keys_and_values_are_split_by_heads_where_the_heads_divide(tp, share):
    model = qwen_vl.QwenVLConfig.from_config(CONFIGS["MODELS"]["qwen3_vl_8b"], 0)
    # layers · keys and values · heads · width · (prompt + samples) · bytes of bfloat16, of one group
    whole = 36 * 2 * 8 * 128 * (8192 + 8 * 512) * 2
    assert compile_count.cache_bytes(model, compile_count.Work(4, 8, 8192, 512, 30, 1024), 4, tp) == whole // share


def test_the_counted_cache_is_that_of_the_arrays_that_prefill_leaves():
    made = config()
    functions = abstract_functions(made)
    prefix = functions.prefix()
    alone = compile_count.Work(2, 0, made.data.prompt_tokens, 0, made.data.units, made.data.patches)
    counted = compile_count.cache_bytes(functions.model, alone, 2, 2)
    assert bytes_per_device((prefix.keys, prefix.values)) == counted


def test_what_is_compiled_for_a_rollout_are_the_two_programs_of_training():
    made = config("model=tiny,topology=v5e:1x1,mesh=fsdp:1")
    made.model.attention = "xla"  # the kernel is lowered for a TPU only
    functions = Functions(made, partitioning.make_mesh())
    prefix = jax.tree.leaves(functions.prefix())
    left = jax.tree.leaves(functions.lower("prefill").out_info)
    assert [(x.shape, x.dtype) for x in left] == [(x.shape, x.dtype) for x in prefix]
    decode = functions.lower("decode")
    taken = jax.tree.leaves(decode.in_avals[0][1])
    assert [x.shape for x in taken] == [x.shape for x in prefix]
    # A layer's keys are arrays of their own: of a stack, decoding would have to make them beside it.
    layers, kv = functions.model.layers, (1, functions.model.kv_heads, made.data.prompt_tokens)
    assert sum(x.shape[:3] == kv for x in taken) == 2 * layers
    assert decode.out_info.tokens.shape == (1, made.rl.group, made.rl.max_new_tokens)


def test_no_step_runs_in_less_than_the_lower_bound():
    made = config("model=qwen3_vl_8b,mesh=fsdp:8")
    cell = compile.count(made, abstract_functions(made))
    # float32 parameters, two moments and gradients, and a bfloat16 reference: 18 bytes a parameter.
    assert cell["lower_bound"] * 8 == pytest.approx(18 * cell["parameters"], rel=0.01)
    assert cell["lower_bound"] > cell["resident"]["total"]


def test_flops_are_those_of_the_matrix_products_that_the_forward_pass_is_made_of():
    made = config()
    functions = abstract_functions(made)
    # As plain products, which can be counted: a kernel hides its own.
    model, rl, data = dataclasses.replace(functions.model, attention="xla"), made.rl, made.data
    work = compile_count.Work(2, rl.group, data.prompt_tokens, rl.max_new_tokens, data.units, data.patches)
    counted = compile_count.flops(model, work, dict.fromkeys(("text", "merger", "tower"), True), lora=False)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (functions.state.params, functions.prompt))
    traced = jax.make_jaxpr(lambda params, prompt: run_prompts(params, model, prompt))(*bare)
    # What is done beside: the masked half of the causal square, and the interpolation of the position table.
    half = 4 * model.layers * model.heads * model.head_width * work.B * work.T * (work.T - 1) / 2
    table = 2 * work.B * work.units * work.patches * model.vision.position_grid**2 * model.vision.width
    assert counted["prefill"] + half + table == products(traced.jaxpr)
    assert counted["update"] == pytest.approx(3 * counted["rollout"])
    assert counted["rollout"] == pytest.approx(counted["prefill"] + counted["decode"])


def test_what_stands_before_everything_trained_has_no_backward_pass_and_what_stands_behind_it_has():
    made = config()
    model, rl, data = abstract_functions(made).model, made.rl, made.data
    work = compile_count.Work(2, rl.group, data.prompt_tokens, rl.max_new_tokens, data.units, data.patches)

    def update(*trained, lora=True):
        of = {part: part in trained for part in ("text", "merger", "tower")}
        return compile_count.flops(model, work, of, lora)["update"]

    forward = update()
    assert forward == pytest.approx(
        compile_count.flops(model, work, {}.fromkeys(("text", "merger", "tower"), False), True)["rollout"]
    )
    text = update("text") - forward
    assert update("merger") - forward > text  # the gradient goes back through the decoder, and through the merger
    assert update("tower") == pytest.approx(2 * forward)
    assert update("text", lora=False) == pytest.approx(forward + 2 * text)


def products(jaxpr):
    """FLOPs of all matrix products of a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        total += times * sum(products(value) for value in inner if hasattr(value, "eqns"))
        if equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[i] for i in contract)
    return total


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("model=qwen3_vl_8b,topology=v5e:4x4,mesh=fsdp:2-tp:3", "tp 3 does not divide the model's 32 heads"),
        ("model=qwen3_vl_8b,topology=v9:4x4,mesh=fsdp:16", "unknown chip 'v9'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_compiled(variant, message):
    with pytest.raises(UserError, match=message):
        compile.check(CONFIGS["get_config"](variant))


def test_samples_do_not_go_on_alone_on_a_slice():
    made = config()
    made.rl.compact = (1,)
    with pytest.raises(UserError, match=r"one device only.*config\.rl\.compact"):
        compile.check(made)


def test_what_is_compiled_samples_as_the_config_says():
    made = config()
    made.rl.suffix_buckets = (4, 8)
    assert abstract_functions(made)._sampling.widths == (4, 8, 16)


@pytest.mark.parametrize("variant", ["model=none", "size=8b", "mesh=fsdp8"])
def test_a_variant_that_cannot_be_read_is_refused(variant):
    with pytest.raises(UserError):
        CONFIGS["get_config"](variant)


def test_the_compilers_own_line_is_told():
    message = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error.\nRan out of memory in memory space hbm. Used 19G.\n"
    assert compile.out_of_memory_line(message) == "Ran out of memory in memory space hbm. Used 19G."


class Compiler:
    """Assigns all that it is told to plan with, of 16 GiB, as long as that is at least `least` GiB."""

    def __init__(self, least):
        self.least, self.asked = least, []

    def lower(self, name):
        return self

    def compile(self, compiler_options):
        plan = int(compiler_options.get("xla_tpu_max_hbm_size_mib", 16 * 1024)) / 1024
        self.asked.append(plan)
        if plan < self.least:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM, it is too much.")
        report = f"Memory Space: default (color=0)\nTotal bytes: {int((plan - 0.5) * GIB)} (its GiB)\n"
        report += "Memory Space: vmem (color=1)\nTotal bytes: 99 (99B)\n"
        (Path(compiler_options["xla_dump_to"]) / "module.memory-usage-report.txt").write_text(report)
        return self

    def memory_analysis(self):
        self.argument_size_in_bytes, self.output_size_in_bytes, self.alias_size_in_bytes = 4 * GIB, 3 * GIB, 2 * GIB
        self.generated_code_size_in_bytes = GIB // 4
        self.temp_size_in_bytes = 99 * GIB  # not what it decides by
        self.peak_memory_in_bytes = self.least * GIB
        return self


def test_an_update_that_takes_too_much_is_told_how_much_there_is_and_what_never_fits_says_so():
    cell = {"hbm": 16 * GIB, "beside": {"update": 2 * GIB, "prefill": 2 * GIB}}
    compiler = Compiler(least=5)
    found = compile._compiled(compiler, "update", cell)
    assert found["fits"]
    assert compiler.asked == [16, 14]
    assert found["planned"] == 14 * 1024
    assert found["total"] == 15.75 * GIB
    assert found["live"] == 5 * GIB
    assert [found[part] / GIB for part in ("arguments", "outputs", "temporaries", "code")] == [4, 1, 8.5, 0.25]
    found = compile._compiled(Compiler(least=15), "update", cell)
    assert not found["fits"]
    assert found["error"] == "with the 2.00 GiB that stay beside it, it needs 17.75 GiB"
    found = compile._compiled(Compiler(17), "update", cell)
    assert found == {"fits": False, "error": "RESOURCE_EXHAUSTED: Ran out of memory on HBM, it is too much."}
    compiler = Compiler(6)
    assert not compile._compiled(compiler, "prefill", cell)["fits"]
    assert compiler.asked == [16]  # a run compiles it for all of the memory


def test_every_slice_of_the_sweep_is_one_that_can_be_launched():
    chips = json.loads((ROOT / "tpu" / "chips.json").read_text())
    assert chips.keys() == compile.HBM.keys()
    for cell in compile_sweep.cells(CONFIGS["get_config"]("sweep")):
        chip, _, shape = cell["topology"].partition(":")
        devices = chips[chip]["devices_per_chip"] * np.prod([int(n) for n in shape.split("x")])
        assert np.prod([int(part.split(":")[1]) for part in cell["mesh"].split("-")]) == devices
        assert shape in chips[chip]["hosts"]


def test_the_page_says_what_was_compiled_and_what_was_not(tmp_path):
    sweep = CONFIGS["get_config"]("sweep")
    first, second, *_ = compile_sweep.cells(sweep)
    cell = {
        "resident": {"total": 4 * GIB}, "cache": GIB, "lower_bound": 6 * GIB, "hbm": 16 * GIB, "fits": True,
        "functions": {n: {"fits": True, "total": s * GIB} for n, s in (("update", 9), ("prefill", 7), ("decode", 8))},
    }  # fmt: skip
    cell["functions"]["update"]["planned"] = 7000
    cell["made"] = {
        "date": "2026-11-29",
        "libtpu": "0.0.42",
        "commit": "abc",
        "jax": "0.10",
        "processor": "P",
        "cores": 1,
    }
    compile_sweep.path_of(tmp_path, first).write_text(json.dumps(cell))
    everything = compile_sweep.cells(sweep)
    bounds = {compile_sweep.name_of(c): [6 * GIB, 16 * GIB] for c in everything}
    bounds[compile_sweep.name_of(second)] = [99 * GIB, 16 * GIB]
    page = compile_sweep.page(sweep, tmp_path, bounds)
    assert f"1 of {len(everything)} cells" in page
    assert "Cells: 1 on 2026-11-29 at abc, libtpu 0.0.42, jax 0.10, 1 core(s) of P." in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert any("9.0 / 7.0 / 8.0" in row and row.endswith("| fits (`rl.update_hbm_mib` 7,000) |") for row in rows)
    assert sum(row.endswith("| ruled out |") for row in rows) == 1
    assert sum(row.endswith("| not compiled |") for row in rows) == len(everything) - 2
    assert page.count("No compiled cell fits so far.") == len(sweep.models) * len(sweep.lora) - 1


def test_what_a_stopped_sweep_left_is_not_taken_for_the_cell_that_failed(tmp_path, monkeypatch):
    sweep = CONFIGS["get_config"]("sweep")
    sweep.update(models=("tiny",), lora=(0,), slices=(("v5e:2x2", ("fsdp:4",)),))
    (cell,) = compile_sweep.cells(sweep)
    (tmp_path / "bounds.json").write_text(json.dumps({compile_sweep.name_of(cell): [1, 2]}))
    folder = tmp_path / "running" / compile_sweep.name_of(cell)
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text("of an earlier commit")
    monkeypatch.setenv("JAX_ENABLE_X64", "perhaps")  # the cell's process ends with a traceback, and with code 1
    compile_sweep.run(sweep, tmp_path)
    assert not compile_sweep.path_of(tmp_path, cell).exists()
    assert "0 of 1 cells" in (tmp_path / "tpu_memory.md").read_text()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed")
def test_a_small_model_compiles_for_a_slice_and_a_slice_that_is_not_there_is_refused(tmp_path):
    small = ["--config.data.prompt_tokens=256", "--config.data.units=2", "--config.data.patches=64"]
    small += ["--config.rl.group=2", "--config.rl.max_new_tokens=8", "--config.functions=('prefill',)"]

    def call(topology, mesh):
        variant = f"configs/compile.py:model=tiny,topology={topology},mesh={mesh}"
        command = [sys.executable, "-m", "evads_jax.main", f"--config={variant}", f"--workdir={tmp_path}", *small]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)

    done = call("v5e:2x2", "fsdp:2-tp:2")
    assert done.returncode == 0, done.stderr[-2000:]
    cell = json.loads((tmp_path / "cell.json").read_text())
    assert 0 < cell["functions"]["prefill"]["total"] < cell["hbm"]
    # The output head is no argument of prefill.
    assert cell["functions"]["prefill"]["arguments"] == pytest.approx(cell["resident"]["trained"], rel=0.1)
    assert "prefill" in done.stdout
    assert call("v6e:1x1", "fsdp:1").returncode == 0  # hosts of one chip
    refused = call("v5e:3x3", "fsdp:9")
    assert refused.returncode == 2
    assert "there is no slice 'v5e:3x3'" in refused.stderr
