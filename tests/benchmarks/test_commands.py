"""The benchmarks run to their end on a tiny model, go on from their file, and fill their blocks of the page."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import attention, grpo_step, long_sample, machine, record, rollout, sharing
from benchmarks.decoder import Sizes, Work
from evads_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def run(name, folder, *options):
    """The command's output, and the text of its page."""
    page = folder / "performance.md"
    if not page.exists():
        shutil.copy(ROOT / "docs" / "performance.md", page)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", f"--out={folder / 'out.json'}", f"--page={page}"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return done.stdout, page.read_text(encoding="utf-8")


def block(page, name):
    return re.search(f"<!-- begin {name} -->(.*)<!-- end {name} -->", page, re.DOTALL)[1]


@pytest.mark.slow
@pytest.mark.peers
def test_a_step_beside_trl(tmp_path):
    out, page = run("grpo_step", tmp_path, "--rounds=2", "--json")
    found = json.loads(out.splitlines()[-1])
    ((name, row),) = found["settings"].items()
    assert name == "12 + 4, ragged"
    for side in ("evads_jax", "TRL"):
        assert len(row[side]["rounds"]) == 2
        assert row[side]["seconds"] > 0
        assert row[side]["peak_bytes"] > 1e8
    assert row["ratio"] == pytest.approx(row["TRL"]["seconds"] / row["evads_jax"]["seconds"])
    for name in ("grpo_step", "grpo_step_settings", "phases"):
        assert "| 12 + 4, ragged |" in block(page, name)
    again, _ = run("grpo_step", tmp_path, "--rounds=2", "--json")  # from the file, nothing is measured
    assert json.loads(again.splitlines()[-1]) == found
    assert "…" not in again


@pytest.mark.slow
@pytest.mark.peers
def test_sampling_beside_generate(tmp_path):
    out, page = run("rollout", tmp_path, "--rounds=2", "--json")
    ((name, row),) = json.loads(out.splitlines()[-1])["settings"].items()
    assert row["evads_jax"]["tokens_per_second"] == pytest.approx(16 / row["evads_jax"]["seconds"])
    assert f"| {name} |" in block(page, "rollout")


@pytest.mark.slow
def test_shared_and_naive_prompts_and_growth(tmp_path):
    out, page = run("sharing", tmp_path, "--rounds=1", "--json")
    found = json.loads(out.splitlines()[-1])
    assert found["video"]["ratio"] > 0
    assert "| naive |" in block(page, "video")
    assert "| prompt tokens |" in block(page, "growth")
    assert (tmp_path / "performance_growth.png").stat().st_size > 1000


def test_one_long_sample(tmp_path):
    _, page = run("long_sample", tmp_path, "--rounds=1")
    assert "| 12 + 16 |" in block(page, "long_sample")
    again, _ = run("long_sample", tmp_path, "--rounds=1")
    assert "…" not in again


def test_every_sample_but_the_first_ends_at_the_chosen_ids():
    tokens = np.array([[[1, 2, 3, 4], [1, 5, 6, 7]], [[8, 2, 9, 9], [3, 1, 2, 5]]])
    assert long_sample.ending(tokens[:1], 3) == (6,)
    assert long_sample.ending(tokens, 4) == (5, 7, 9)
    with pytest.raises(RuntimeError, match="no token of its own among the first 3"):
        long_sample.ending(tokens, 3)


@pytest.mark.slow
def test_the_forms_of_attention(tmp_path):
    _, page = run("attention", tmp_path, "--rounds=1")
    assert block(page, "attention").count("| 12 |") == 2


def as_if_measured(self, name, measure):
    one = {"seconds": 2.0, "prefill": 0.5, "decode": 0.5, "reward": 0.1, "update": 0.9, "rounds": [2.0]}
    one |= {"peak_bytes": 10**9, "settings": "all at a time"}
    if name.startswith("peaks"):
        return {"flops": 1e11, "bytes": 1e10}
    if name.startswith("growth"):
        return 2.0
    if name.startswith(("causal", "suffixes")):
        return {"plain": 1.0, "tile 4": 2.0}
    if name.endswith("+ 512"):
        return dict.fromkeys((long_sample.WIDE, long_sample.APART, long_sample.ALONE), 2.0)
    return dict.fromkeys(("evads_jax", "TRL", "generate", "shared", "naive"), one) if SIDES.search(name) else one


SIDES = re.compile("in turn|×")


@pytest.mark.parametrize(
    "command", [grpo_step, rollout, sharing, attention, long_sample], ids=lambda module: module.__name__
)
def test_every_block_of_the_page_is_filled(command, tmp_path, monkeypatch, capsys):
    page = tmp_path / "performance.md"
    names = re.findall("<!-- begin (.*) -->", (ROOT / "docs" / "performance.md").read_text(encoding="utf-8"))
    page.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in names), encoding="utf-8")
    monkeypatch.setattr(record.Record, "once", as_if_measured)
    monkeypatch.setattr("benchmarks.grpo_step.write_checkpoints", lambda *_: None)
    monkeypatch.setattr("benchmarks.rollout.write_checkpoints", lambda *_: None)
    has_json = [] if command in (attention, long_sample) else ["--json"]
    monkeypatch.setattr(sys, "argv", ["command", f"--page={page}", *has_json])
    command.main()
    filled = {name for name in names if block(page.read_text(encoding="utf-8"), name).strip()}
    assert set(names) == set().union(*BLOCKS.values())
    assert filled == BLOCKS[command]
    if has_json:
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["about"]["processor"]


BLOCKS = {
    grpo_step: {"grpo_step", "grpo_step_settings", "phases"},
    rollout: {"rollout"},
    sharing: {"video", "growth"},
    attention: {"attention"},
    long_sample: {"long_sample"},
}


def test_longer_prompts_can_be_left_for_a_later_call(tmp_path, monkeypatch):
    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(record.Record, "once", as_if_measured)
    monkeypatch.setattr("benchmarks.grpo_step.write_checkpoints", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["command", f"--page={page}", "--longest=1024"])
    grpo_step.main()
    found = block(page.read_text(encoding="utf-8"), "grpo_step")
    assert "| 1,024 + 64 |" in found
    assert "4,096" not in found
    assert "benchmarks.grpo_step --longest=1024`" in found


def test_a_file_of_another_machine_is_refused_and_a_measurement_made_once(tmp_path):
    path, made = tmp_path / "out.json", []
    for _ in range(2):
        assert record.Record(path).once("a", lambda: made.append(1) or len(made)) == 1
    held = json.loads(path.read_text())
    held["about"]["processor"] = "another"
    path.write_text(json.dumps(held))
    with pytest.raises(UserError, match="differ in processor from"):
        record.Record(path)


def test_a_file_of_other_options_is_refused(tmp_path):
    path = tmp_path / "out.json"
    record.Record(path, rounds=1, quick=True).once("a", lambda: 1)
    assert record.Record(path, rounds=1, quick=True).found == {"a": 1}
    with pytest.raises(UserError, match="differ in rounds, quick from"):
        record.Record(path, rounds=3, quick=False)


def test_attention_that_gives_other_gradients_is_not_timed():
    forms, inputs = attention.prompt_forms(12, (4,))
    assert set(attention.measure(forms, inputs, 1)) >= {"plain", "all blocks in turn", "tile 4"}
    forms["all keys"] = lambda q, k, v: v.mean(axis=2)[:, None] + 0 * q
    with pytest.raises(AssertionError, match="all keys"):
        attention.measure(forms, inputs, 1)


@pytest.mark.peers
def test_torchs_attention_has_the_gradients_of_ours():
    assert "torch" in attention.measure(*attention.prompt_forms(12, (4,)), 1)


def test_the_floor_counts_a_prompt_once_and_every_completion():
    config, lengths = Sizes().config(), [64, 32]
    one, eight = (machine.floors(config, lengths, G, 16) for G in (1, 8))
    assert one["prefill"] == eight["prefill"]
    assert eight["decode"].flops == 8 * one["decode"].flops
    assert eight["decode"].bytes < 2 * one["decode"].bytes  # parameters and prompts are read once for all
    assert eight["update"].flops == 3 * (eight["prefill"].flops + eight["decode"].flops)
    peak = {"flops": 1e9, "bytes": 1e6}
    assert machine.seconds(machine.Cost(3e9, 1e6), peak) == 3.0
    assert machine.seconds(machine.Cost(3e9, 5e6), peak) == 5.0


def test_the_floor_does_not_run_the_last_token_of_a_completion():
    config = Sizes().config()
    one, two = (machine.floors(config, [64], 1, S)["decode"] for S in (1, 2))
    head, table = 2 * 256 * 8192, 4 * 256 * 8192
    assert one == (head, table)  # the prompt's last state predicts it
    layer = 4 * 256 * 256 + 3 * 256 * 768
    assert two.flops == 2 * head + 2 * 4 * layer + 4 * 256 * 4 * (64 + 1)
    assert two.bytes > 2 * table + 4 * 4 * layer


def test_ragged_prompts_fall_to_half_and_a_video_has_all_its_tokens():
    config, ragged = Sizes().config(), Work(4, 8, 90, 4, ragged=True)
    assert ragged.lengths == [90, 75, 60, 45]
    assert [len(ids) for ids in ragged.ids(8192)] == ragged.lengths
    film = Work(2, 2, 24, 4, video=(2, 4, 4))
    batch = film.batch(film.drawn(config), config)
    assert [(row >= 0).sum() for row in batch.video_index] == [8, 8]
    assert batch.video.patches.shape == (4, 16, config.vision.patch_values)
