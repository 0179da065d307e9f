"""A whole experiment that takes seconds: coloured frames, one-word answers, a model of a few thousand parameters.

Also a program, so that it can be killed (MG-GRPO: killable.py):

    python tiny_experiment.py WORKDIR COUNT

SFT; the process kills itself with SIGKILL when the COUNT-th batch is being learned from.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from evads_jax.data.media import encode_jpeg
from evads_jax.data.prompts import constants, corpus
from evads_jax.data.records import Event, Question, RubricPoint, VideoRecord
from evads_jax.data.tokenizer import load_tokenizer, train_sentencepiece
from evads_jax.events import EventLog
from evads_jax.models.qwen_vl import QwenVLConfig, init
from evads_jax.train import grpo, sft
from evads_jax.train.context import Context

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}


class Records(list):
    """What the loader asks of a source of shards."""

    @property
    def questions(self):
        return tuple(len(record.questions) for record in self)


def record(index, questions=2):
    name, colour = list(COLOURS.items())[index % len(COLOURS)]
    frame = np.full((16, 16, 3), colour, np.uint8)
    rivals = tuple(other for other in COLOURS if other != name)
    return VideoRecord(
        video=f"v{index}",
        frames=tuple(encode_jpeg(frame) for _ in range(2)),
        times=(0.0, 1.0),
        duration=2.0,
        questions=tuple(
            Question(
                f"v{index}-{n}", "which colour?", name, f"it is {name}", "BP", (RubricPoint("c", (name,), rivals),)
            )
            for n in range(questions)
        ),
        category="mugs",
        annotated_duration=2,
        events=(Event(0, 1, (), "look at this"),),
        source="render",
    )


def config():
    made = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "mg_grpo.py"))["get_config"]()
    made.data.update(max_frames=2, frame_size=16, prompt_tokens=96, suffix_tokens=64, format_sft="rl_released")
    made.model.update(
        width=16, layers=2, heads=2, kv_heads=1, head_width=8, mlp_width=16, mrope_sections=(2, 1, 1),
        vision_width=8, vision_layers=1, vision_heads=1, vision_mlp_width=8, vision_patch=8, vision_merge=1,
        vision_position_grid=2, vision_deepstack=(0,),
    )  # fmt: skip
    made.sft.update(batch_videos=4, questions_per_video=2, max_steps=6, validate_every=3, warmup_steps=2)
    made.sft.update(optimizer="adamw", learning_rate=1e-3)
    made.rl.update(batch_prompts=2, group=4, max_steps=4, max_new_tokens=12)
    made.rl.update(learning_rate=1e-2, warmup_steps=0, weight_decay=0.0)  # one compilation for all tests
    made.checkpoint.every = 2
    return made


def context(workdir, changes=lambda config: None):
    settings = config()
    changes(settings)
    folder = Path(__file__).parents[2] / ".cache" / "tests" / "tiny_tokenizer"
    if not (folder / "tokenizer.model").exists():
        examples = [example for i in range(4) for example in record(i).examples()]
        train_sentencepiece(corpus(examples), 400, folder, constants())
    tokenizer = load_tokenizer("sentencepiece", folder)
    sources = {"sft": Records(map(record, range(12))), "rl": Records(map(record, range(8))),
               "validation": Records(map(record, range(6)))}  # fmt: skip
    model = QwenVLConfig.from_config(settings.model, tokenizer.size)
    return Context(settings, Path(workdir), EventLog(workdir), tokenizer, model, sources)


def train(stage, workdir, changes=lambda config: None):
    made = context(workdir, changes)
    params = init(made.model, jax.random.key(0))
    return {"sft": sft.train_sft, "mg_grpo": grpo.train_grpo}[stage](made, params)


if __name__ == "__main__":
    workdir, count = sys.argv[1:]
    calls, original = [], sft.SFTLearner.step

    def step(*arguments):
        calls.append(1)
        after = original(*arguments)
        if len(calls) == int(count):  # under way, not at a boundary
            os.kill(os.getpid(), signal.SIGKILL)
        return after

    sft.SFTLearner.step = step
    train("sft", workdir)
