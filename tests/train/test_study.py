"""The study: which experiments it runs, with what, in which process."""

import pytest

from evads_jax.errors import UserError
from evads_jax.main import load_config
from evads_jax.train import study


@pytest.fixture
def ran(monkeypatch):
    """What the study asks of others: (run's folder, its config) of each experiment, and the names of its tables."""
    runs, written = {}, {}
    monkeypatch.setattr(study.experiment, "run", lambda config, folder: runs.update({folder: config}))

    def keeps(name):
        return lambda folders: written.update({name: folders}) or []

    for name in ("learning", "learning_summary", "reward_ablation"):
        monkeypatch.setitem(study.tables.TABLES, name, keeps(name))
    return runs, written


@pytest.fixture
def config():
    made = load_config("configs/study.py")
    made.seeds, made.grains = (1, 2), ("strict", "r5")
    return made


def test_every_seed_has_its_whole_run_and_its_other_rewards_from_the_same_sft_result(ran, config, tmp_path):
    study.run(config, tmp_path)
    runs, written = ran
    names = [str(folder.relative_to(tmp_path)) for folder in runs]
    whole, ablated = names[:2], names[2:]
    assert whole == ["seed1/mg", "seed2/mg"]
    assert ablated == ["seed1/strict", "seed1/r5", "seed2/strict", "seed2/r5"]
    for name in ablated:
        made = runs[tmp_path / name]
        assert name == f"seed{made.run.seed}/{made.rl.reward}"
        assert made.run.sft_from == str(tmp_path / f"seed{made.run.seed}" / "mg")
        assert made.run.stages == ("mg_grpo",)
    assert written == {
        "learning": [tmp_path / name for name in whole],
        "learning_summary": [tmp_path / name for name in whole],
        "reward_ablation": [tmp_path / name for name in names],
    }


def test_processes_that_name_their_runs_do_these_and_leave_the_tables_to_a_call_that_names_none(ran, config, tmp_path):
    runs, written = ran
    for only in (("seed2/mg",), ("seed1/mg", "seed1/r5")):
        config.only = only
        runs.clear()
        study.run(config, tmp_path)
        assert {str(folder.relative_to(tmp_path)) for folder in runs} == set(only)
    assert not written
    config.only = ()
    study.run(config, tmp_path)
    assert set(written) == {"learning", "learning_summary", "reward_ablation"}


def test_a_run_that_the_study_does_not_have_is_told_with_those_it_has(ran, config, tmp_path):
    config.only = ("seed3/mg",)
    with pytest.raises(UserError, match=r"no run 'seed3/mg'.*seed1/mg, seed2/mg, seed1/strict"):
        study.run(config, tmp_path)
    assert not ran[0]


def test_a_study_may_get_other_seeds_but_no_other_recipe(ran, config, tmp_path):
    study.run(config, tmp_path)
    config.seeds = (3,)
    study.run(config, tmp_path)
    config.experiment.sft.learning_rate *= 2
    with pytest.raises(UserError, match=r"sft\.learning_rate"):
        study.run(config, tmp_path)
