import json

import pytest

from evads_jax.benchmark.files import Split, read_lines
from evads_jax.benchmark.predict import predict
from evads_jax.errors import UserError

from .small_world import Knowing


def test_every_question_is_asked_once_and_kept(split, tmp_path):
    policy = Knowing(1.0)
    completions = predict(policy, split, tmp_path)
    assert list(completions) == [e.question.id for e in split.examples]
    assert sorted(policy.asked) == sorted(completions)
    rows = read_lines(tmp_path / "predictions.jsonl")
    assert {row["id"]: row["completion"] for row in rows} == completions
    again = Knowing(1.0)
    assert predict(again, split, tmp_path) == completions
    assert again.asked == []


def test_questions_of_one_task_are_asked_together(split, tmp_path):
    policy = Knowing(1.0)
    predict(policy, split, tmp_path)
    task = {e.question.id: e.question.task for e in split.examples}
    asked = [task[name] for name in policy.asked]
    assert asked == sorted(asked)


@pytest.mark.parametrize("cut", [1, 30, 117])
def test_a_killed_run_goes_on_after_its_last_whole_line(split, tmp_path, cut):
    predict(Knowing(0.5), split, tmp_path / "whole")
    path = tmp_path / "killed" / "predictions.jsonl"
    predict(Knowing(0.5), split, path.parent)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + cut])
    kept = len(read_lines(path))
    policy = Knowing(0.5)
    completions = predict(policy, split, path.parent)
    assert completions == predict(Knowing(0.5), split, tmp_path / "whole")
    assert len(policy.asked) == len(split.examples) - kept
    assert len(read_lines(path)) == len(split.examples)


@pytest.mark.parametrize("change", [{"weights": "other"}, {"temperature": 1.0}])
def test_completions_of_other_weights_or_another_protocol_are_set_aside(split, tmp_path, change):
    predict(Knowing(0.0), split, tmp_path)
    policy = Knowing(1.0, **change)
    predict(policy, split, tmp_path)
    assert len(policy.asked) == len(split.examples)
    old = list(tmp_path.glob("predictions.*.jsonl"))
    assert len(old) == 1
    assert len(read_lines(old[0])) == len(split.examples)
    assert "red kettle" in old[0].read_text()


def test_what_was_set_aside_is_there_again_when_it_is_asked_for_again(split, tmp_path):
    first = predict(Knowing(0.0), split, tmp_path)
    names = ("verdicts.jsonl", "verdicts_repeat1.jsonl", "verdicts_second_0123456789ab.jsonl")
    for name in names:
        (tmp_path / name).write_text("{}\n")
    second = predict(Knowing(1.0, temperature=1.0), split, tmp_path)
    assert not any((tmp_path / name).exists() for name in names)  # nor verdicts on other completions
    assert not any("second" in path.name for path in tmp_path.glob("verdicts_*.jsonl"))
    for share, temperature, known in ((0.0, None, first), (1.0, 1.0, second), (0.0, None, first)):
        policy = Knowing(share, **({"temperature": temperature} if temperature else {}))
        assert predict(policy, split, tmp_path) == known
        assert policy.asked == []
    assert all((tmp_path / name).read_text() == "{}\n" for name in names)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_kill_while_completions_are_set_aside_loses_none(split, tmp_path, renamed):
    first = predict(Knowing(0.0), split, tmp_path)
    protocol = (tmp_path / "protocol.json").read_bytes()
    predict(Knowing(1.0, temperature=1.0), split, tmp_path)
    (aside,) = tmp_path.glob("predictions.*.jsonl")
    (tmp_path / "predictions.jsonl").unlink()
    if renamed:  # killed before the protocol was written
        (tmp_path / "protocol.json").write_bytes(protocol)
    policy = Knowing(0.0)
    assert predict(policy, split, tmp_path) == first
    assert policy.asked == []
    assert not aside.exists()


def test_the_split_has_a_hash_of_its_content_and_no_two_equal_ids(records):
    assert Split.of(records).hash == Split.of(list(records)).hash
    assert Split.of(records).hash != Split.of(records[1:]).hash
    with pytest.raises(UserError, match="two questions"):
        Split.of([*records, records[0]])


def test_any_completion_survives_the_file(split, tmp_path):
    class Odd(Knowing):
        def _answer(self, question):
            return 'a\nb\u2028"</answer>\u0000🙂'

    predict(Odd(0.0), split, tmp_path)
    lines = (tmp_path / "predictions.jsonl").read_bytes().split(b"\n")[:-1]
    assert len(lines) == len(split.examples)
    assert {json.loads(line)["completion"] for line in lines} == {'a\nb\u2028"</answer>\u0000🙂'}
