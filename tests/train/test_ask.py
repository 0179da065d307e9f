"""Asking a model about a video: a run's model gets what its evaluation gets, and errors come before long work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_experiment
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import evads_jax
from evads_jax import workdir as run_folder
from evads_jax.benchmark.policy import ModelPolicy
from evads_jax.data import media, prompts, tokenizer
from evads_jax.data.qwen_processor import read_processing, read_video
from evads_jax.data.records import Event, Question, VideoRecord
from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.main import load_config
from evads_jax.models.qwen_vl import init
from evads_jax.train import ask, ask_source, optimizer, state
from evads_jax.train.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "tests" / "models" / "qwen_vl" / "golden" / "checkpoints"
QUESTIONS = ["which colour?", "what is said in the video, and by whom?", "什么颜色？"]
EVENTS = (Event(0, 1, ("SALE",), "look at this"), Event(2, 2, (), "buy now"))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "ad.mp4"
    rng = np.random.default_rng(0)
    frames = [np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), 8, 0), 8, 1).astype(np.uint8) for _ in range(3)]
    media.write_mp4(path, frames, rate=1)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run leaves behind, as far as it is needed: config, and a finished stage with drawn parameters."""
    folder = tmp_path_factory.mktemp("run") / "w"

    def changes(config):
        config.tokenizer.path = str(ROOT / ".cache" / "tests" / "tiny_tokenizer")
        config.data.update(prompt_tokens=192, format_eval="sft_released")
        config.eval.update(batch_prompts=4, max_new_tokens=10)

    made = tiny_experiment.context(folder, changes)
    run_folder.claim(folder, made.config)
    EventLog(folder).write("run")
    params = jax.tree.map(lambda x: 2.0 * x, init(made.model, jax.random.key(3)))
    started = state.create(params, optimizer.make(made.config.rl, made.divide(params, "sft").decay_mask, 1)[0])
    checkpoints = Checkpoints(folder, "mg_grpo")
    checkpoints.save(7, started, None, {})
    checkpoints.finish({"step": 7, "best_step": 7, "reason": "max_steps", "seconds": 1.0, "events": 1})
    checkpoints.close()
    return folder, made, params


@pytest.fixture(scope="module")
def model(run):
    return evads_jax.load(run[0])


def byte_tokenizer() -> str:
    """A tokenizer.json with Qwen's added tokens that writes every byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(s, special=True) for s in (*tokenizer._CONTROL, tokenizer.PAD)])
    made.add_tokens([AddedToken(s, special=False) for s in ("<think>", "</think>")])
    return made.to_str()


@pytest.fixture(params=["qwen3_vl_5", "qwen2_5_vl_4"])
def checkpoint(request, tmp_path):
    """A small checkpoint that transformers wrote, with a tokenizer beside it."""
    folder = tmp_path / request.param
    shutil.copytree(CHECKPOINTS / request.param, folder)
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    return folder


def evaluated(run, video):
    """What an evaluation of the run predicts for the same questions."""
    _, made, params = run
    taken = media.decode(video, made.config.data.frame_rate, 2, 16, 8)
    record = VideoRecord(
        video="ad.mp4", frames=tuple(media.encode_jpeg(frame) for frame in taken.frames), times=taken.times,
        duration=taken.duration, questions=tuple(Question(text, text, "") for text in QUESTIONS), category="mugs",
        annotated_duration=round(taken.duration), events=EVENTS,
    )  # fmt: skip
    policy = ModelPolicy(params, made.model, made.tokenizer, made.config, "drawn")
    return policy.generate([(record, i) for i in range(len(QUESTIONS))])


def test_a_runs_model_says_what_its_evaluation_says(run, model, video):
    together = model.ask(video, QUESTIONS, EVENTS, "mugs")
    assert [said.text for said in together] == evaluated(run, video)
    assert [said.question for said in together] == QUESTIONS
    assert len({said.text for said in together}) > 1
    assert together[0].times == (0.0, 1.5)
    read = prompts.parse_completion(together[1].text)
    assert (together[1].trace, together[1].answer) == (read.trace, read.answer)
    assert together[0].memory > 0
    assert together[0].seconds > 0


def test_a_question_alone_gets_the_same_answer(model, video):
    events = [{"start": 0, "end": 1, "ocr": ["SALE"], "asr": "look at this"}, {"start": 2, "asr": "buy now"}]
    alone = model.ask(video, QUESTIONS[1], events, "mugs")
    assert alone.text == model.ask(video, QUESTIONS, EVENTS, "mugs")[1].text


def test_events_that_do_not_fit_are_left_out_and_counted(model, video):
    many = [Event(i, i, (), f"word number {i} of many words") for i in range(20)]
    assert 0 < model.ask(video, QUESTIONS, many)[0].dropped_events < 20


def config(**changes):
    made = load_config(str(ROOT / "configs" / "ask.py"))
    made.update(changes)
    return made


def test_the_job_prints_trace_answer_frames_seconds_and_memory(run, video, tmp_path, capsys):
    (tmp_path / "events.json").write_text(json.dumps([{"start": 0, "asr": "look at this"}]), encoding="utf-8")
    asked = config(
        model=str(run[0]), video=str(video), question="\n".join(QUESTIONS), events=str(tmp_path / "events.json")
    )
    ask.run(asked)
    told = capsys.readouterr().out
    assert "mg_grpo, step 7" in told
    assert all(question in told for question in QUESTIONS)
    assert told.count("trace") >= 3
    assert "2 frames (0.0 to 1.5 s)" in told
    assert " GB" in told


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_checkpoint_sees_its_processors_frames_and_is_asked_in_the_questions_language(
    checkpoint, video, language, monkeypatch
):
    seen = []
    render = prompts.render

    def watched(example, format, language):
        seen.append((format, language))
        return render(example, format, language)

    monkeypatch.setattr(prompts, "render", watched)
    said = evads_jax.load(checkpoint, max_new_tokens=3).ask(
        video, {"en": "which colour?", "zh": "什么颜色？"}[language]
    )
    assert seen == [("asr_ocr", language)]
    processing = read_processing(checkpoint, checkpoint.name[:-2], "video", 8, 2)
    assert said.times == read_video(video, processing).times
    assert 1 <= said.tokens <= 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "/nowhere"}, "no such folder of a model"),
        ({"video": "/nowhere.mp4"}, "the video cannot be shown: missing"),
        ({"video": "SOUND"}, "the video cannot be shown: no_video"),
        ({"question": " "}, "no question"),
        ({"question": None}, r"no question \[config.question\]"),
        ({"stage": "sft"}, "no finished stage sft"),
        ({"events": "/nowhere.json"}, "no readable JSON file of events"),
        ({"format": "poem"}, "unknown format 'poem'"),
        ({"max_frames": 0}, "max_frames must be above 0"),
        ({"prompt_tokens": 16}, "raise config.prompt_tokens"),
    ],
)
def test_what_is_missing_is_one_line_before_anything_long(run, video, changes, told, monkeypatch, tmp_path):
    if changes.get("video") == "SOUND":
        (tmp_path / "sound.flac").write_bytes(media.encode_flac(np.zeros(1600, np.float32)))
        changes = {"video": str(tmp_path / "sound.flac")}
    if "prompt_tokens" not in changes:
        monkeypatch.setattr(ask_source.find_policy.__globals__["Policy"], "parameters", lambda policy: 1 / 0)
    asked = {"model": str(run[0]), "video": str(video), "question": "which colour?"} | changes
    with pytest.raises(UserError, match=told) as error:
        ask.run(config(**asked))
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_no_model_is_refused(tmp_path, checkpoint):
    with pytest.raises(UserError, match="no readable config"):
        evads_jax.load(tmp_path)
    with pytest.raises(UserError, match="a checkpoint has no stage 'sft'"):
        evads_jax.load(checkpoint, "sft")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no readable tokenizer"):
        evads_jax.load(checkpoint)


def test_importing_the_package_imports_no_jax():
    code = "import sys, evads_jax; assert 'jax' not in sys.modules, 'jax'"
    subprocess.run([sys.executable, "-c", code], check=True)
