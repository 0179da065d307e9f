"""The peers' side of the benchmarks: a step of TRL's GRPOTrainer, or transformers' `generate`.

Run by `benchmarks.sides`, in the environment that `make test-peers` makes.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import tokenizers
import torch
import transformers
import trl

from benchmarks.decoder import PLAIN, Work
from benchmarks.sides import Channel, bound_memory

PAD, END = "<pad>", "<end>"


def load(folder: str) -> transformers.Qwen3ForCausalLM:
    """The plain checkpoint, float32."""
    return transformers.Qwen3ForCausalLM.from_pretrained(Path(folder) / PLAIN, dtype=torch.float32).eval()


def word(token: int) -> str:
    """How a token is written in a prompt."""
    return f"t{token}"


def tokenizer_of(vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    """A word for each id, and an end that lies beyond the model's vocabulary: nothing that it samples stops early."""
    words = {PAD: 0} | {word(i): i for i in range(1, vocabulary)} | {END: vocabulary}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token=PAD))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, unk_token=PAD, eos_token=END, padding_side="left"
    )


@torch.no_grad()
def checked(model: transformers.Qwen3ForCausalLM, work: Work) -> list[float]:
    """The log-probabilities that all sides must agree on."""
    vocabulary = model.config.vocab_size
    prompt, suffix = work.ids(vocabulary)[0], work.checked(vocabulary)
    logits = model(torch.tensor([prompt + suffix]), logits_to_keep=len(suffix) + 1, use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1)[torch.arange(len(suffix)), torch.tensor(suffix)].tolist()


class Told(transformers.TrainerCallback):
    """Has the trainer wait for a request before each step, and answers behind it; says its first word when it begins.

    What is timed is all that the trainer does from one optimizer step to behind the next.
    """

    def __init__(self, channel: Channel, logprobs: list[float]):
        self._channel, self._logprobs, self._begin = channel, logprobs, 0.0

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        """Ready."""
        self._channel.say(logprobs=self._logprobs)
        self._wait()

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """A step is done."""
        self._channel.say(seconds=time.perf_counter() - self._begin)
        self._wait()

    def _wait(self) -> None:
        self._channel.hear()
        self._begin = time.perf_counter()


def trl_steps(channel: Channel, model: transformers.Qwen3ForCausalLM, work: Work, batch: int, checkpoint: bool) -> None:
    """Steps of TRL's trainer, one for each request.

    Args:
      channel: who asks.
      model: the policy.
      work: prompts and lengths.
      batch: per-device batch; what is left of prompts · group is accumulated.
      checkpoint: gradient checkpointing.
    """
    ids = work.ids(model.config.vocab_size)
    prompts = [" ".join(map(word, prompt)) for prompt in ids] * 64  # long epochs
    draw = random.Random(3)

    def reward(completions: list[str], completion_ids: list[list[int]], **named: Any) -> list[float]:
        assert all(len(ids) == work.new for ids in completion_ids)
        return [draw.random() for _ in completions]

    with tempfile.TemporaryDirectory() as folder:
        arguments = trl.GRPOConfig(
            output_dir=folder, per_device_train_batch_size=batch,
            gradient_accumulation_steps=work.prompts * work.group // batch, num_generations=work.group,
            max_completion_length=work.new, gradient_checkpointing=checkpoint, loss_type="grpo", beta=0.0,
            num_iterations=1, temperature=1.0, learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.0,
            max_grad_norm=1.0, max_steps=10**6, shuffle_dataset=False, bf16=False, use_cpu=True, report_to="none",
            logging_strategy="no", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = trl.GRPOTrainer(
            model=model, reward_funcs=reward, args=arguments, processing_class=tokenizer_of(model.config.vocab_size),
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
            callbacks=[Told(channel, checked(model, work))],
        )  # fmt: skip
        trainer.train()


@torch.no_grad()
def generations(channel: Channel, model: transformers.Qwen3ForCausalLM, work: Work) -> None:
    """Calls of `generate`, one for each request; all completions of the work in one batch."""
    rows = [prompt for prompt in work.ids(model.config.vocab_size) for _ in range(work.group)]
    ids = torch.tensor(rows)
    settings = transformers.GenerationConfig(
        max_new_tokens=work.new,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
        disable_compile=True,
    )
    channel.say(logprobs=checked(model, work))
    while True:
        channel.hear()
        begin = time.perf_counter()
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        seconds = time.perf_counter() - begin
        assert found.shape[1] == work.tokens + work.new
        channel.say(seconds=seconds)


def main(spec: dict[str, Any]) -> None:
    """One side."""
    bound_memory()
    channel = Channel()
    work, model = Work(**spec["work"]), load(spec["folder"])
    if spec["kind"] == "rollout":
        generations(channel, model, work)
    else:
        trl_steps(channel, model, work, **spec["settings"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
