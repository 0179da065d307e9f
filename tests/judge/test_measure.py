import numpy as np
import pytest

from evads_jax.data.annotations import read_folder
from evads_jax.data.records import Event, Example, Question
from evads_jax.errors import UserError
from evads_jax.judge import measure


@pytest.fixture(scope="module")
def released(released_annotations):
    return [e for file in read_folder(released_annotations).values() for e in file.examples]


@pytest.fixture
def few():
    answers = {"a": ("黑色的皮质手提包", "左侧的金属拉链", "草编篮筐"), "b": ("白色陶瓷圆碗", "合规，属于合理修辞")}
    return [
        Example(
            Question(f"{video}{i}", "展示了什么？", answer, f"线索是{answer}"),
            video,
            "其他",
            9,
            (Event(0, 0, ("好物",)),),
        )
        for video, group in answers.items()
        for i, answer in enumerate(group)
    ]


def test_every_released_reference_is_perfect(released):
    assert len(released) == 2860
    assert (measure.score(released, [e.question.answer for e in released]) == 1).all()
    assert (measure.score(released, [e.question.clues for e in released], "trace") == 1).all()


def test_pasting_listing_and_echoing_stay_below_a_quarter(released):
    table = measure.candidates(released)
    for name in (
        "the question repeated",
        "the events pasted",
        "20 keywords of the category",
        "100 keywords of the category",
    ):
        texts, aspect = table[name]
        assert measure.score(released[::9], texts[::9], aspect).mean() <= 0.25, name


def test_other_answers_score_far_below_the_first_half(released):
    table = {name: texts for name, (texts, _) in measure.candidates(released).items()}
    means = {
        name: np.mean(measure.score(released, table[name]))
        for name in ("the first half of the reference", "another answer of the same video", "another video's answer")
    }
    assert means["the first half of the reference"] > 0.4
    assert max(means["another answer of the same video"], means["another video's answer"]) < 0.05


def test_no_attack_beats_the_partial_answer_on_released_rows(released):
    rows = measure.attack_table(released[::40], measure.keywords(released, 20))
    assert [(name, beaten) for name, _, beaten in rows if beaten] == []


def test_neighbours_are_of_the_same_and_of_another_video(few):
    assert [e.question.id for e in measure.next_of_video(few)] == ["a1", "a2", "a0", "b1", "b0"]
    assert all(o.video != e.video for e, o in zip(few, measure.of_other_video(few), strict=True))


def test_the_report_replaces_only_what_stands_between_the_markers(few, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before {measure.BEGIN} old {measure.END} after", encoding="utf-8")
    monkeypatch.setattr(measure, "read_folder", lambda _: {"f": type("File", (), {"examples": few})})
    monkeypatch.setattr("sys.argv", ["measure", "--annotations=x", f"--out={page}"])
    measure.main()
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before {measure.BEGIN}\n5 questions of 2 videos")
    assert text.endswith(f"{measure.END} after")
    assert "old" not in text.split()
    assert "| the reference itself | 1.0000 | 0 | 0 | 0 | 0 | 5 |" in text


def test_a_page_without_markers_is_the_users_error(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["measure", "--annotations=x", f"--out={page}"])
    with pytest.raises(UserError, match="no place"):
        measure.main()
