"""The job: a corpus in, densities, tables and one page out."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from density.films import film, settings_of
from density.test_items import EVENTS, annotated
from evads_jax.data import annotations, media, shards
from evads_jax.data import folder as own_data
from evads_jax.data.records import Event, Example, Question, VideoRecord
from evads_jax.data.render.script import SCENE_SECONDS, draw_script
from evads_jax.data.render.video import RATE, draw_frames
from evads_jax.density import measure
from evads_jax.density.extract import ocr
from evads_jax.density.items import Corpus, Item
from evads_jax.density.job import NOTES_SHOWN, run
from evads_jax.density.measure_ocr import drawn, overlay_texts
from evads_jax.density.measurement import Measurement
from evads_jax.density.text import TextSettings, speech_density
from evads_jax.density.words import cjk_char_latin_run
from evads_jax.errors import UserError

GOLDEN = Path(__file__).parents[1] / "models" / "dinov3" / "golden"


def done(tmp_path, **changes) -> tuple[dict, dict[str, Measurement], Path]:
    """Runs the job in this process: corpus.json, measurements by video, the folder of the results."""
    config = settings_of(
        **{"run.workers": 0, "ocr.engine": "events", "report.bootstrap": 50, "report.extremes": 0, **changes}
    )
    run(config, tmp_path / "W")
    out = tmp_path / "W" / "density"
    lines = (out / "videos.jsonl").read_text(encoding="utf-8").splitlines()
    found = {m.video: m for m in map(Measurement.from_line, lines)}
    assert len(found) == len(lines)
    return json.loads((out / "corpus.json").read_text(encoding="utf-8")), found, out


def test_annotations_give_a_and_o_and_v_is_missing_with_the_reason(tmp_path):
    corpus, found, out = done(tmp_path, annotations=str(annotated(tmp_path / "a")), name="mine")
    assert corpus["mine"]["A_den"]["mean"] == pytest.approx(4 / 3)
    assert corpus["mine"]["O_den"]["mean"] == pytest.approx(8 / 3)
    assert corpus["mine"]["V_den"]["mean"] is None
    assert corpus["mine"]["V_den"]["missing"] == {"annotations hold no pictures": 2}
    fields = {"mean", "ci95", "median", "n", "n_missing", "rule"}
    assert all(fields <= corpus["mine"][metric].keys() for metric in ("V_den", "A_den", "O_den"))
    assert found["../videos/7.mp4"].curves == {"A_den": (2.0, 0.0, 2.0), "O_den": (4.0, 4.0, 0.0)}
    assert {p.suffix for p in (out / "tables").iterdir()} == {".md", ".csv", ".tex", ".html"}


def test_the_released_annotations_keep_the_measured_densities(released_annotations, tmp_path):
    corpus, found, _ = done(tmp_path, annotations=str(released_annotations))
    assert len(found) == 572
    assert corpus["corpus"]["A_den"]["mean"] == pytest.approx(4.95, abs=0.02)
    assert corpus["corpus"]["O_den"]["mean"] == pytest.approx(17.73, abs=0.05)
    assert corpus["corpus"]["O_den"]["median"] == pytest.approx(12.1, abs=0.05)


def test_weights_make_v_den_and_blocks_only_v_blocks(tmp_path):
    film(tmp_path / "v" / "a.mp4", scenes=3)
    corpus, found, _ = done(tmp_path, videos=str(tmp_path / "v"))
    assert corpus["corpus"]["V_blocks"]["n"] == 1
    assert corpus["corpus"]["V_den"]["missing"] == {"no DINOv3 weights; measured as V_blocks": 1}
    changes = {"visual.model": str(GOLDEN), "visual.image_size": 32}
    corpus, found, _ = done(tmp_path / "w", videos=str(tmp_path / "v"), **changes)
    assert corpus["corpus"].keys() == {"V_den", "A_den", "O_den"}
    assert found["a.mp4"].values["V_den"] > 0
    assert len(found["a.mp4"].curves["V_den"]) == 6


def test_density_of_rendered_ads_rises_with_cuts_words_and_overlays_as_built(tmp_path):
    script = draw_script(0, "en")
    pictures = draw_frames(script)[:: SCENE_SECONDS * RATE]  # one of each scene
    said = [sentence for scene in script.scenes for sentence in scene.sentences]
    written = overlay_texts(3)
    rows = []
    for built in range(4):  # so many cuts, sentences and overlays
        path = tmp_path / "v" / f"{built}.mp4"
        path.parent.mkdir(exist_ok=True)
        media.write_mp4(path, [pictures[k * (built + 1) // 24 % 2] for k in range(24)], 4)
        (tmp_path / "t").mkdir(exist_ok=True)
        words = [{"start": k, "end": k + 1, "text": said[k]} for k in range(built)]
        (tmp_path / "t" / f"{built}.json").write_text(json.dumps(words), encoding="utf-8")
        events = (Event(0, 5, tuple(written[:built]), "said otherwise"),)
        rows.append(Example(Question(f"{built}", "?", "!", "."), f"{built}.mp4", "其他", 6, events, source="sft"))
    (tmp_path / "a").mkdir()
    annotations.write_sft(tmp_path / "a" / annotations.FILES["sft"], rows)
    sources = {name: str(tmp_path / name[0]) for name in ("videos", "transcripts", "annotations")}
    _, blocks, _ = done(tmp_path / "blocks", **sources)
    _, tokens, _ = done(tmp_path / "tokens", **sources, **{"visual.model": str(GOLDEN), "visual.image_size": 64})
    for found, metric in ((blocks, "V_blocks"), (tokens, "V_den")):
        seen, heard, read = ([found[f"{b}.mp4"].values[m] for b in range(4)] for m in (metric, "A_den", "O_den"))
        # A still film is not exactly 0 here: the encoder's first picture differs from the next by a grain.
        assert seen[0] < seen[1] / 5
        assert all(a < b for a, b in itertools.pairwise(seen))
        assert heard == pytest.approx([sum(cjk_char_latin_run(s) for s in said[:b]) / 6 for b in range(4)])
        assert read == pytest.approx([sum(cjk_char_latin_run(s) for s in written[:b]) for b in range(4)])
        assert len(set(heard)) == len(set(read)) == 4


@pytest.mark.skipif(not ocr.installed(), reason="needs the extra ocr")
def test_overlays_burned_into_a_film_raise_what_is_read_as_built(tmp_path):
    texts = overlay_texts(4)
    (tmp_path / "v").mkdir()
    for built in range(1, 5):
        frame = drawn(texts[:built], 40, 1.0)
        media.write_mp4(tmp_path / "v" / f"{built}.mp4", [frame] * 4, 2)
    _, found, _ = done(tmp_path, videos=str(tmp_path / "v"), **{"ocr.engine": "rapidocr", "visual.features": "none"})
    read = [found[f"{built}.mp4"].values["O_den"] for built in range(1, 5)]
    assert all(a < b for a, b in itertools.pairwise(read))
    words = [sum(map(cjk_char_latin_run, texts[:built])) for built in range(1, 5)]
    assert all(b / 2 <= a <= b for a, b in zip(read, words, strict=True))  # a space may be lost, so two words be one


def test_shards_give_what_the_videos_they_were_made_of_give(tmp_path):
    path = film(tmp_path / "v" / "a.mp4", scenes=4, audio=True)
    played = media.decode(path, 2, 100, 128)
    frames = tuple(map(media.encode_jpeg, played.frames))
    record = VideoRecord("a.mp4", frames, played.times, played.duration, (), category="其他", events=EVENTS)
    shards.write([record], tmp_path / "s" / "train", split="train")
    from_file, from_shard = (
        done(tmp_path / kind, **{kind: str(tmp_path / place)})[1]["a.mp4"]
        for kind, place in (("videos", "v"), ("shards", "s"))
    )
    # JPEG moves colours a little.
    assert from_shard.values["V_blocks"] == pytest.approx(from_file.values["V_blocks"], rel=0.02)
    assert from_shard.category == "其他"
    assert from_shard.values["A_den"] == pytest.approx(speech_density(EVENTS, 6, TextSettings()).value)


def test_a_second_call_measures_nothing_anew_and_another_rule_does(tmp_path, capsys):
    film(tmp_path / "v" / "a.mp4", scenes=3)
    done(tmp_path, videos=str(tmp_path / "v"))
    [kept] = (tmp_path / "W" / "density" / "parts").glob("*/*.jsonl")
    before = kept.stat().st_mtime_ns
    done(tmp_path, videos=str(tmp_path / "v"))
    assert kept.stat().st_mtime_ns == before
    done(tmp_path, videos=str(tmp_path / "v"), **{"visual.radius": 1.0})
    assert len(list((tmp_path / "W" / "density" / "parts").glob("*/*.jsonl"))) == 2


def test_extracted_events_are_what_the_rest_of_the_project_reads(tmp_path):
    videos = film(tmp_path / "v" / "a.mp4", scenes=2).parent
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n今天特价\n", encoding="utf-8")
    question = {"video": "a.mp4", "question": "问?", "answer": "答"}
    (tmp_path / "q.jsonl").write_text(json.dumps(question), encoding="utf-8")
    _, _, out = done(
        tmp_path,
        videos=str(videos),
        transcripts=str(tmp_path / "t"),
        write_events=True,
        questions=str(tmp_path / "q.jsonl"),
    )
    [read] = own_data.read_questions(out / "questions.jsonl", videos).examples
    assert read.events == (Event(1, 1, (), "今天特价"),)
    assert read.duration == 6
    [row] = map(json.loads, (out / "events.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["video"] == "a.mp4"


def test_a_reader_that_is_installed_later_reads_what_was_missing(tmp_path, monkeypatch):
    film(tmp_path / "v" / "a.mp4", scenes=1, seconds=2)

    class Reader:
        def __call__(self, frame):
            return [ocr.Reading("SALE", (0.1, 0.1, 0.6, 0.2), 0.9)]

    monkeypatch.setattr(measure, "RapidOCRReader", Reader)
    for there, expected in ((False, None), (True, 1.0)):
        monkeypatch.setattr(ocr, "installed", lambda there=there: there)
        _, found, _ = done(tmp_path, videos=str(tmp_path / "v"), **{"ocr.engine": "auto"})
        assert found["a.mp4"].values.get("O_den") == expected


def test_a_video_that_stands_in_two_splits_is_counted_once(tmp_path):
    played = media.decode(film(tmp_path / "a.mp4", scenes=2, seconds=2), 1, 6, 64)
    frames = tuple(map(media.encode_jpeg, played.frames))
    made = [VideoRecord(f"{i}.mp4", frames, played.times, 2.0, (), events=EVENTS) for i in range(3)]
    shards.write(made[:2], tmp_path / "s" / "rl", split="rl")
    shards.write(made, tmp_path / "s" / "sft", split="sft")
    corpus, found, out = done(tmp_path, shards=str(tmp_path / "s"), **{"report.extremes": 3})
    assert found.keys() == {"0.mp4", "1.mp4", "2.mp4"}
    assert corpus["corpus"]["A_den"]["n"] == 3
    assert "2 videos stand in a second split" in (out / "report.html").read_text(encoding="utf-8")


def test_videos_with_fewer_frames_than_the_rule_says_are_counted_in_a_note(tmp_path, capsys):
    film(tmp_path / "v" / "a.mp4", scenes=2)
    _, _, out = done(tmp_path / "all", videos=str(tmp_path / "v"))
    assert "fewer than visual.frame_rate" not in (out / "report.html").read_text(encoding="utf-8")
    _, _, out = done(tmp_path / "few", videos=str(tmp_path / "v"), **{"visual.max_frames": 6})
    told = "1 videos show fewer than visual.frame_rate=2 frames a second"
    assert told in (out / "report.html").read_text(encoding="utf-8")
    assert told in capsys.readouterr().err


def test_notes_that_are_not_shown_are_counted(tmp_path, monkeypatch, capsys):
    notes = tuple(f"note {i}" for i in range(NOTES_SHOWN + 3))
    items = (Item("a", duration=1.0, events=()),)
    monkeypatch.setattr("evads_jax.density.job.read_corpus", lambda config: Corpus(items, notes))
    _, _, out = done(tmp_path, annotations="x")
    assert "and 3 more notes" in capsys.readouterr().err
    assert "and 3 more notes" in (out / "report.html").read_text(encoding="utf-8")


def test_an_unreadable_transcript_is_a_reason_not_a_crash(tmp_path):
    videos = film(tmp_path / "v" / "a.mp4", scenes=2).parent
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.srt").write_text("nothing", encoding="utf-8")
    _, found, _ = done(tmp_path, videos=str(videos), transcripts=str(tmp_path / "t"))
    assert found["a.mp4"].missing["A_den"].startswith("unreadable transcript: a.srt")


def test_the_page_needs_no_other_file_and_escapes_names(tmp_path):
    film(tmp_path / "v" / "<b>.mp4", scenes=2)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"")
    _, _, out = done(tmp_path, videos=str(tmp_path / "v"), **{"run.max_bad_share": 0.9, "report.extremes": 1})
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;.mp4" in page
    assert "<b>" not in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"}
    assert page.count("image/jpeg") >= 2
    assert "1 videos failed: empty" in page
    assert json.loads((out / "failures.jsonl").read_text(encoding="utf-8"))["video"] == "broken.mp4"


def test_two_corpora_are_compared(tmp_path):
    for name, scenes in (("calm", 1), ("lively", 8)):
        for i in range(3):
            film(tmp_path / name / f"{i}.mp4", scenes=scenes, seed=i, seconds=3)
    _, _, calm = done(tmp_path / "one", videos=str(tmp_path / "calm"))
    changes = {"report.compare_with": str(calm / "videos.jsonl"), "report.paired": True}
    corpus, found, out = done(tmp_path / "two", videos=str(tmp_path / "lively"), **changes)
    gap = corpus["comparison"]["V_blocks"]
    assert gap["mean"] == pytest.approx(np.mean([m.values["V_blocks"] for m in found.values()]), rel=0.2)
    assert gap["ci95"][0] > 0
    assert gap["n"] == [3, 3]
    assert corpus["comparison"]["A_den"]["mean"] is None
    row = f"| V_blocks | {gap['mean']:.2f} | [{gap['ci95'][0]:.2f}, {gap['ci95'][1]:.2f}] |"
    assert row in (out / "tables" / "comparison.md").read_text(encoding="utf-8")
    assert f"<td>{gap['mean']:.2f}</td>" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing to measure"),
        ({"videos": "nowhere"}, "no such folder of videos"),
        ({"videos": "v", "shards": "s"}, "give one of them"),
        ({"videos": "v", "visual.features": "dinov3"}, "no DINOv3 weights"),
        ({"videos": "v", "visual.model": "v"}, r"no \.safetensors"),
        ({"videos": "v", "visual.features": "clip"}, "unknown features"),
        ({"videos": "v", "ocr.engine": "whisper"}, "unknown engine"),
        ({"videos": "v", "text.words": "spaces"}, "unknown rule"),
        ({"videos": "v", "visual.shape": "cosine"}, r"config\.visual\.shape"),
        ({"videos": "v", "visual.frame_rate": 0.0}, r"frame_rate is 0\.0, not positive \[config\.visual\.frame_rate"),
        ({"videos": "v", "asr.engine": "whisper"}, "faster-whisper"),
        ({"videos": "v", "report.bins": 0}, r"bins is 0, not positive \[config\.report\.bins"),
        ({"videos": "v", "report.compare_with": "nowhere"}, r"not a readable videos\.jsonl"),
        ({"videos": "v", "write_events": True, "questions": "v"}, "not readable as JSONL of questions"),
        ({"videos": "v", "questions": "q.jsonl"}, r"no events are added \[config\.questions"),
        ({"videos": "v", "split": "test"}, "a split without shards"),
        ({"shards": "s", "transcripts": "t"}, r"transcripts beside shards \[config\.transcripts"),
        ({"videos": "v", "name": "comparison"}, "cannot be called"),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, monkeypatch, changes, message):
    film(tmp_path / "v" / "a.mp4", scenes=1, seconds=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        done(tmp_path, **changes)
    assert not list(tmp_path.glob("W/density/parts/*/*.jsonl")), "long work was done before"


def test_a_line_of_results_reads_back(tmp_path):
    m = Measurement(
        "a", None, 1.5, {"A_den": 2.0}, {"V_den": "why"}, {"A_den": (1.0, None)}, ("kind", "detail"), 3, (1,), EVENTS
    )
    assert Measurement.from_line(m.line()) == m
