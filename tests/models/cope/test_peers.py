"""Frames and text at the sizes of the paper's encoders, and the loss, against transformers and torch."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models import cope
from evads_jax.models.cope.text import encode_text
from evads_jax.models.cope.visual import encode_frames
from evads_jax.models.cope.weights import load_text, load_visual

pytestmark = pytest.mark.peers

# X-CLIP B/16 with eight frames and four integration layers, and the three-layer Chinese RoBERTa, a small vocabulary.
CONFIG = cope.CopeConfig(vocabulary=500, text_tokens=32)
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "image_size": 224, "patch_size": 16}  # fmt: skip
MIT = {"mit_hidden_size": 512, "mit_intermediate_size": 2048, "mit_num_hidden_layers": 4, "mit_num_attention_heads": 8}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 3, "num_attention_heads": 12,
        "vocab_size": 500}  # fmt: skip


def largest_relative(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def make_golden():
    pytest.importorskip("torch")
    from cope import make_golden

    return make_golden


def test_frames_of_true_size_are_encoded_as_by_x_clip(make_golden, tmp_path):
    model = make_golden.xclip(8, mit=MIT, **VISION)
    model.save_pretrained(tmp_path)
    params = load_visual(cope.init(CONFIG, jax.random.key(0)), CONFIG, tmp_path)
    frames = make_golden.inputs(1, 8, 1, 224, 500)["frames"]
    found, _ = encode_frames(params["encoders"]["shared"]["visual"], CONFIG, frames, jnp.array([8]))
    assert largest_relative(found, make_golden.video_features(model, frames)) <= 1e-5


def test_text_of_true_size_is_encoded_as_by_bert(make_golden, tmp_path):
    model = make_golden.bert(**TEXT)
    model.save_pretrained(tmp_path)
    small = dataclasses.replace(CONFIG, visual_layers=1, mit_layers=1)
    params = load_text(cope.init(small, jax.random.key(0)), small, tmp_path)
    given = make_golden.inputs(3, 1, 32, 16, 500)
    states, said = encode_text(
        params["encoders"]["shared"]["text"], small, jnp.asarray(given["tokens"]), jnp.asarray(given["token_count"])
    )
    expected = make_golden.text_features(model, 3, given["tokens"], given["token_count"])["states"]
    assert largest_relative(states[said], expected[np.asarray(said)]) <= 1e-5


def test_the_golden_files_are_what_transformers_computes(make_golden):
    golden = np.load(make_golden.GOLDEN / "expected.npz")
    video = make_golden.xclip(3, **make_golden.VISION)
    text = make_golden.text_features(make_golden.bert(**make_golden.TEXT), 2, golden["tokens"], golden["token_count"])
    assert largest_relative(make_golden.video_features(video, golden["frames"]), golden["features_3"]) <= 1e-6
    assert largest_relative(text["states"], golden["states"]) <= 1e-6


def test_the_pair_loss_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 9, 8)))
    a, b = (torch.tensor(x, requires_grad=True) for x in (left, right))
    logits, targets = a @ b.T / 0.05, torch.arange(9)
    entropy = lambda x: torch.nn.functional.cross_entropy(x, targets, label_smoothing=0.1)  # noqa: E731
    loss = (entropy(logits) + entropy(logits.T)) / 2
    loss.backward()
    found, gradients = jax.value_and_grad(
        lambda a, b: cope.pair_loss(a, b, jnp.ones(9, bool), temperature=0.05, smoothing=0.1, chunk=4), (0, 1)
    )(left.astype(np.float32), right.astype(np.float32))
    assert float(found) == pytest.approx(loss.item(), rel=1e-6)
    for one, other in zip(gradients, (a.grad, b.grad), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


def test_the_benchmark_finds_the_same_losses_and_writes_its_page(tmp_path):
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    page.write_text("<!-- begin speed -->\n<!-- end speed -->\n")
    command = [sys.executable, "-m", "benchmarks.cope", "--quick", f"--page={page}", f"--out={out}"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3], timeout=500)
    found = json.loads(out.read_text())["found"]["step, tiny"]
    assert found["apart"][0] <= 1e-4
    assert found["seconds"].keys() == {"evads_jax", "PyTorch"}
    assert "| training step |" in page.read_text()
    assert "| loss of a batch of |" in page.read_text()
