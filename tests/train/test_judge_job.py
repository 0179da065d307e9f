"""The trained judge: its loss by the formula, its input, and the whole job with a tiny model."""

import dataclasses
import functools
import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from evads_jax.data.tokenizer import load_tokenizer
from evads_jax.errors import UserError
from evads_jax.events import read_events
from evads_jax.judge import make_judge
from evads_jax.judge.examples import Examples
from evads_jax.judge.marks import named_values
from evads_jax.judge.request import render_likelihood
from evads_jax.judge.verdict import GRID, Verdict
from evads_jax.models import qwen_vl
from evads_jax.train import judge_job, optimizer
from evads_jax.train.judge_inputs import JudgeBatches, ReadingBatches, fitting, fitting_group, survey
from evads_jax.train.judge_job import JudgeRun
from evads_jax.train.judge_learner import JudgeLearner, Marks

CONFIG = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "judge.py"))["get_config"]
TINY = {
    "model.width": 16, "model.layers": 2, "model.heads": 2, "model.kv_heads": 1, "model.head_width": 8,
    "model.mlp_width": 16, "model.mrope_sections": (2, 1, 1), "tokenizer.vocabulary": 1024,
    "train.named_layer": 1, "train.compared_layer": 2, "train.optimizer": "adamw", "train.warmup_steps": 1,
    "eval.batch": 16,
}  # fmt: skip


def tiny(**changes):
    config = CONFIG("smoke")
    config.update_from_flattened_dict(TINY | changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The job's folder, and what it printed."""
    workdir = tmp_path_factory.mktemp("judge") / "w"
    judge_job.run(tiny(), workdir)
    return workdir


@pytest.fixture(scope="module")
def made(finished):
    config = tiny()
    return JudgeRun.make(config, finished, judge_job.check(config))


def batches(made, groups=2):
    return JudgeBatches(made.examples["train"].group, made.judge({}, 1), made.tokenizer, made.model, groups, 8)


def example(made, number):
    return functools.partial(made.examples["train"].group, number // 8, number % 8, 8)


def naive_logprob(params, config, ids, position):
    """log p of ids[position:] after ids[:position], by the definition of the decoder, in float64; text only."""
    text = jax.tree.map(lambda x: np.asarray(x, np.float64), params["text"])
    n, half = len(ids), config.head_width // 2
    angles = np.arange(n)[:, None] * config.rope_theta ** -(np.arange(half) / half)

    def rms(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) * scale

    def turn(x):
        z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
        return np.concatenate([z.real, z.imag], -1)

    x = text["embed"][ids]
    for i in range(config.layers):
        layer = jax.tree.map(lambda w, i=i: w[i], text["layers"])
        h = rms(x, layer["norm1"]["scale"])
        q, k, v = (np.einsum("nd,dhw->nhw", h, layer[name]) for name in "qkv")
        q, k = turn(rms(q, layer["q_norm"]["scale"])), turn(rms(k, layer["k_norm"]["scale"]))
        k, v = (np.repeat(y, config.heads // config.kv_heads, axis=1) for y in (k, v))
        logits = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(config.head_width)
        weights = np.exp(np.where(np.tri(n, dtype=bool), logits - logits.max(), -np.inf))
        attended = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)
        x = x + np.einsum("nhw,hwd->nd", attended, layer["out"])
        h = rms(x, layer["norm2"]["scale"])
        gate = h @ layer["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["up"])) @ layer["down"]
    logits = rms(x, text["norm"]["scale"]) @ text["embed"].T
    logprob = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return sum(logprob[at - 1, ids[at]] for at in range(position, n))


@pytest.mark.parametrize("reading", [False, True])
def test_the_loss_is_the_mean_over_the_scored_tokens_of_whole_prompts_by_the_naive_formula(made, reading):
    model, judge = made.model, made.judge({}, 1)
    params = qwen_vl.init(model, jax.random.key(1))
    learner = JudgeLearner(
        params, model, optimizer.make(made.config.train, qwen_vl.decay_mask(model), 10), lambda p: {}
    )
    examples = made.examples["train"]
    count, source = (4, ReadingBatches(examples, judge, model, 4)) if reading else (16, batches(made))
    total, tokens = learner.sums(params, next(source))
    expected = scored = 0.0
    for number in range(count):
        draw = functools.partial(examples, number) if reading else example(made, number)
        (prompt, label, _), _ = fitting(draw, judge)
        ids = [*prompt.tokens.tolist(), *judge.encode_value(label)]
        own = len(ids) - 1 if reading else len(judge.encode_value(label))
        expected -= naive_logprob(params, model, ids, len(ids) - own)
        scored += own
    assert float(tokens) == scored
    np.testing.assert_allclose(float(total), expected, rtol=1e-4)


def naive_model(params, model, layers):
    """Parameters and sizes of the model's first layers."""
    return judge_job.lowest(params, layers), dataclasses.replace(model, layers=layers)


def test_marks_are_predicted_where_a_value_ends_by_the_naive_formula(made):
    model, judge, examples = made.model, made.judge({}, 1), made.examples["train"]
    params = qwen_vl.init(model, jax.random.key(1))
    marks = Marks(0.5, 1, 2, (7, 9))
    optimizer_of = optimizer.make(made.config.train, qwen_vl.decay_mask(model), 10)
    learner = JudgeLearner(params, model, optimizer_of, lambda p: {}, marks)
    batch = next(batches(made))
    compared, named = {False: [], True: []}, []
    for number in range(2):
        items, _ = fitting_group(examples.group, judge, number, 8)
        for of, item in enumerate(items):
            before = [*item.prompt.tokens.tolist(), *item.prompt.suffix]
            text = made.tokenizer.decode(item.prompt.suffix)
            values = list(named_values(item.example.ad, item.example.task, text))
            places = batch.places[number, of]
            assert (places >= 0).sum() == len(values)
            for at, value, right in zip(places, values, batch.right[number, of], strict=False):
                # The name ends in the token that is marked, and not before.
                ends = [len(made.tokenizer.decode(item.prompt.suffix[:n])) for n in (at, at + 1)]
                assert ends[0] < value.end <= ends[1]
                assert right == value.right
                upto = before[: len(item.prompt.tokens) + at + 1]
                first = made.tokenizer.encode(value.script)[0]
                named.append(naive_logprob(*naive_model(params, model, 1), [*upto, first], len(upto)))
                compared[value.right].append(
                    naive_logprob(params, model, [*upto, marks.tokens[value.right]], len(upto))
                )
    assert min(map(len, compared.values())) >= 2
    loss, parts = learner._loss(params, batch, None)
    total, tokens = learner.sums(params, batch)
    expected = {
        "verdict": float(total / tokens),
        "named": -np.mean(named),
        "compared": -(np.mean(compared[False]) + np.mean(compared[True])) / 2,
        "tokens": 2 * 16,
    }
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected, rel=1e-4)
    weighed = expected["verdict"] + 0.5 * (expected["named"] + expected["compared"])
    assert float(loss) == pytest.approx(weighed, rel=1e-4)


def test_the_stage_of_marks_learns_from_marks_alone_half_of_them_wrong(made):
    examples, judge = made.examples["train"], made.judge({}, 1)
    drawn = JudgeBatches(examples.mixed, judge, made.tokenizer, made.model, 5, 8, verdicts=False)
    right = []
    for _ in range(4):
        batch = next(drawn)
        assert not batch.suffix.mask.any()
        right += batch.right[batch.places >= 0].tolist()
    assert len(right) > 4 * 5 * 8 * 3  # as many as a verdict's group has candidates, several times
    assert abs(np.mean(right) - 0.5) < 0.1
    params = qwen_vl.init(made.model, jax.random.key(1))
    optimizer_of = optimizer.make(made.config.train, {}, 10)
    learner = JudgeLearner(params, made.model, optimizer_of, lambda p: {}, Marks(1.0, 1, 2, (7, 9)))
    loss, parts = learner._loss(params, batch, None)
    assert float(parts["verdict"]) == float(parts["tokens"]) == 0
    assert float(loss) == pytest.approx(float(parts["named"] + parts["compared"]))


def test_what_a_model_of_fewer_layers_learned_is_the_lower_part_of_a_larger_one(made):
    params, other = (qwen_vl.init(made.model, jax.random.key(n)) for n in (1, 2))
    whole = judge_job.grown(params, judge_job.lowest(other, 1))
    layers = whole["text"]["layers"]
    for i, source in enumerate((other, params)):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y[i]), layers, source["text"]["layers"])
    assert whole["text"]["embed"] is other["text"]["embed"]


def test_a_batch_is_a_function_of_the_step_and_balanced(made):
    one, other = batches(made, groups=5), batches(made, groups=5)
    next(one)
    second = next(one)
    other.set_state({"step": 1})
    jax.tree.map(np.testing.assert_array_equal, next(other), second)
    assert other.get_state() == one.get_state() == {"step": 2}
    values = [tuple(made.judge({}, 1).encode_value(v)) for v in GRID]
    scored = second.suffix.tokens[second.suffix.mask].reshape(40, -1).tolist()
    assert np.bincount([values.index(tuple(t)) for t in scored]).tolist() == [8] * 5


def test_a_candidate_that_spells_the_mark_of_its_group_is_drawn_again(made):
    honest = Examples(made.examples["train"].ads, "train", 0)
    judge, draw = made.judge({}, 1), functools.partial(honest.group, 0, 3, 8)
    shared = judge.prompt(draw(0).request, split=True).tokens
    nonce = render_likelihood(draw(0).request, made.prompts).nonce

    def spelling(attempt):
        drawn = draw(attempt)
        candidate = f"{nonce} {drawn.request.candidate}"
        return dataclasses.replace(drawn, request=dataclasses.replace(drawn.request, candidate=candidate))

    assert (
        fitting(lambda attempt: (spelling if attempt < 2 else draw)(attempt), judge, split=True, shared=shared)[1] >= 2
    )
    with pytest.raises(UserError, match="does not begin as its group"):
        fitting(spelling, judge, split=True, shared=shared)


def test_a_grid_value_is_one_token_and_the_end(made):
    judge = made.judge({}, 1)
    assert len({judge.encode_value(value)[0] for value in GRID}) == len(GRID)
    assert all(len(judge.encode_value(value)) == 2 for value in GRID)


def test_what_does_not_fit_is_drawn_again_with_the_same_label_and_a_small_bucket_is_one_line(made):
    ads = made.examples["train"].ads
    pushy, judge = Examples(ads, "train", 0, 0.9), made.judge({}, 1)
    found = [fitting(functools.partial(pushy, number), judge) for number in range(60)]
    assert any(attempt for _, attempt in found)
    assert [item.label for item, _ in found] == [GRID[number % 5] for number in range(60)]
    drawn = [pushy(number, attempt) for number, (_, attempt) in enumerate(found)]
    shown = [made.tokenizer.decode(prompt.tokens.tolist()) for (prompt, *_), _ in found]
    assert all(e.honest.text in text for e, text in zip(drawn, shown, strict=True) if e.attack)
    assert any("more characters were left out" in text for text in shown)  # of the attack, not of the candidate
    for room, tokens in (("prompt_tokens", 100), ("candidate_tokens", 20)):
        small = JudgeRun.make(tiny(**{f"data.{room}": tokens}), made.workdir, made.prompts)
        with pytest.raises(UserError, match=r"no example fits.*config\.data.*raise prompt_tokens or candidate_tokens"):
            survey(small.examples["train"], small.judge({}, 1), 2, 8)


def test_a_group_with_a_candidate_that_never_fits_gets_another_question(made):
    examples, judge = Examples(made.examples["train"].ads, "train", 0), made.judge({}, 1)

    class Long:
        """Its first question's last candidate is too long to be shown, however it is drawn."""

        def group(self, number, place, size, attempt=0, question=0):
            drawn = examples.group(number, place, size, attempt, question)
            if question or place < size - 1:
                return drawn
            text = "kettle " * 500
            asked = dataclasses.replace(drawn.request, candidate=text)
            return dataclasses.replace(drawn, request=asked, honest=dataclasses.replace(drawn.honest, text=text))

    for number in range(5):
        items, question = fitting_group(Long().group, judge, number, 8)
        expected = [
            fitting(functools.partial(examples.group, number, place, 8, question=1), judge)[0].label
            for place in range(8)
        ]
        assert question == 1
        assert [item.label for item in items] == expected
        assert len({tuple(prompt.tokens.tolist()) for prompt, *_ in items}) == 1


def test_the_folder_is_a_judge(finished):
    judge = make_judge(ConfigDict({"kind": "local", "path": str(finished / "judge")}), "en")
    examples = Examples(JudgeRun.make(tiny(), finished, judge_job.check(tiny())).examples["test"].ads, "test", 0)
    for verdict in judge.judge([examples(number).request for number in range(3)]):
        assert isinstance(verdict, Verdict)
        assert verdict.score in GRID
    with pytest.raises(UserError, match="reads 'en'"):
        make_judge(ConfigDict({"kind": "local", "path": str(finished / "judge")}), "zh")


def test_everything_measured_is_in_the_folder_the_tables_and_the_events(finished):
    about = json.loads((finished / "judge" / "judge.json").read_text())
    measured = about["measured"]
    assert about["prompts"] == "v1"
    assert set(measured["agreement"]) == {"local", "lexical"}
    assert measured["agreement"]["lexical"]["answer"]["kappa"]["mean"] == 1.0
    assert {path.suffix for path in (finished / "tables").glob("judge*")} == {".md", ".csv", ".tex", ".html"}
    assert "not shown in training" in (finished / "tables" / "judge.md").read_text()
    (evaluation,) = read_events(finished, "evaluation")
    assert evaluation["kappa"] == measured["agreement"]["local"]["all"]["kappa"]["mean"]
    validations = read_events(finished, "validation")
    assert [(event["stage"], event["step"]) for event in validations] == [("judge", 0), ("judge", 2), ("judge", 4)]
    assert [event["stage"] for event in read_events(finished, "stage_end")] == ["reading", "marks", "judge"]
    assert all(event["loss"] > 0 and -1 <= event["kappa"] <= 1 for event in validations)
    assert read_events(finished, "stage_start")[0]["fit"]["longest_prompt"] <= tiny().data.prompt_tokens
    assert load_tokenizer("sentencepiece", finished / "judge").size <= 1024


def test_a_second_call_trains_and_measures_nothing_again_unless_asked_otherwise(finished, monkeypatch):
    before = {name: (finished / name).read_bytes() for name in ("events.jsonl", "judge/judge.json", "tables/judge.md")}

    def never(*arguments, **others):
        raise AssertionError("measured again")

    monkeypatch.setattr(judge_job, "measure", never)
    judge_job.run(tiny(), finished)
    assert {name: (finished / name).read_bytes() for name in before} == before
    with pytest.raises(AssertionError, match="measured again"):
        judge_job.run(tiny(**{"eval.examples": 30}), finished)


def test_test_ads_can_be_drawn_anew_and_no_others_are(made):
    other = JudgeRun.make(tiny(**{"eval.seed": 1}), made.workdir, made.prompts)
    same = {split: other.examples[split].ads == made.examples[split].ads for split in judge_job.SPLITS}
    assert same == {"train": True, "validation": True, "test": False}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train.groups": 0}, r"config\.train\.groups"),
        ({"train.reading_prompts": 0}, r"config\.train\.reading_prompts"),
        ({"train.candidates": 12}, "a group of 12.*multiple of 8"),
        ({"data.ads_test": 1}, r"1 ads.*config\.data\.ads_test"),
        ({"data.attack_share": 1.0}, r"config\.data\.attack_share"),
        ({"train.compared_layer": 3}, r"compared_layer 3 of 2 layers.*config\.train\.compared_layer"),
        ({"train.named_layer": 0}, r"named_layer 0 and"),
        ({"data.candidate_tokens": 352}, r"config\.data\.candidate_tokens.*data\.prompt_tokens"),
        ({"eval.attacked": 21}, r"21 examples to attack of 20"),
        ({"eval.examples": 4}, r"config\.eval\.examples"),
        ({"data.prompts": "v0"}, "no judge prompts 'v0'"),
        ({"run.language": "fr"}, "unknown language 'fr'"),
        ({"tokenizer.vocabulary": 300}, r"a vocabulary of 300 is too small"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(changes, told, tmp_path):
    with pytest.raises(UserError, match=told):
        judge_job.run(tiny(**changes), tmp_path / "w")
