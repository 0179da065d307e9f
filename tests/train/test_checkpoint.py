import dataclasses
import errno
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from evads_jax.errors import UserError
from evads_jax.train.checkpoint import Checkpoints, finished, load_params
from evads_jax.train.state import TrainState, create


def example(value=1.0, width=3) -> TrainState:
    params = {"a": {"w": jnp.full((2, width), value), "b": jnp.zeros(width)}, "scale": jnp.float32(value)}
    return create(params, optax.adamw(0.1))


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path, "sft", keep=2)
    yield made
    made.close()


def test_state_iterator_and_meta_come_back_exactly(checkpoints):
    state = dataclasses.replace(example(1 / 3), step=jnp.int32(7))
    meta = {"key": [[1, 2]], "best": None, "seconds": 0.1}
    checkpoints.save(7, state, {"next_index": 5, "stages": [{"a": 1}]}, meta)
    checkpoints.wait()
    restored, data, read = checkpoints.restore(7, example())
    assert_equal(restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert data == {"next_index": 5, "stages": [{"a": 1}]}
    assert read == meta


def test_the_latest_and_the_best_stay(checkpoints):
    for step in range(0, 60, 10):
        checkpoints.save(step, example(step), None, {}, best=10 if step >= 10 else 0)
    checkpoints.wait()
    assert sorted(int(p.name) for p in checkpoints.folder.iterdir() if p.name.isdigit()) == [10, 40, 50]


def test_a_checkpoint_of_the_same_step_is_replaced(checkpoints):
    for value in (1.0, 2.0):
        checkpoints.save(3, example(value), None, {"value": value})
    checkpoints.wait()
    state, _, meta = checkpoints.restore(3, example())
    assert (float(state.params["scale"]), meta) == (2.0, {"value": 2.0})


def test_a_half_written_checkpoint_is_never_the_latest(tmp_path, checkpoints):
    checkpoints.save(1, example(), None, {})
    checkpoints.wait()
    half = checkpoints.folder / "2.orbax-checkpoint-tmp-0"
    shutil.copytree(checkpoints.folder / "1", half)
    (half / "meta" / "metadata").unlink()
    again = Checkpoints(tmp_path, "sft")
    assert again.latest() == 1
    again.save(2, example(), None, {})
    again.wait()
    assert again.latest() == 2


def test_a_state_may_be_donated_as_soon_as_saving_began(checkpoints):
    state = example(5.0)
    checkpoints.save(1, state, None, {})
    jax.tree.map(lambda x: x.delete(), state)
    checkpoints.wait()
    assert float(checkpoints.restore(1, example())[0].params["scale"]) == 5.0


def test_a_checkpoint_is_written_while_the_run_goes_on(checkpoints, monkeypatch):
    disk, original = threading.Event(), ocp.PyTreeCheckpointHandler.async_save

    class Slow:
        def result(self, timeout=None):
            disk.wait()

    async def save(*arguments, **named):
        return [*(await original(*arguments, **named)), Slow()]

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "async_save", save)
    checkpoints.save(1, example(), None, {})  # returns, though the disk does not
    names = [path.name for path in checkpoints.folder.iterdir()]
    assert names != ["1"]
    disk.set()
    checkpoints.wait()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["1"]


def test_a_finished_stage_gives_its_best_parameters(tmp_path, checkpoints):
    assert finished(tmp_path, "sft") is None
    with pytest.raises(UserError, match="stage sft is not finished"):
        load_params(tmp_path, "sft", example().params)
    for step in (1, 2, 3):
        checkpoints.save(step, example(step), None, {}, best=1)
    checkpoints.finish({"step": 3, "best_step": 1})
    assert finished(tmp_path, "sft") == {"step": 3, "best_step": 1}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example().params)
    assert_equal(load_params(tmp_path, "sft", like), example(1).params)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, checkpoints):
    checkpoints.save(1, example(width=3), None, {})
    checkpoints.finish({"step": 1, "best_step": 1})
    with pytest.raises(UserError, match=r"another model: a/b is \(3,\) there, \(4,\) here"):
        checkpoints.restore(1, example(width=4))
    with pytest.raises(UserError, match="another model"):
        load_params(tmp_path, "sft", example(width=4).params)
    with pytest.raises(UserError, match=r"scale is \(\) there, none here"):
        load_params(tmp_path, "sft", {"a": example().params["a"]})


def test_a_damaged_checkpoint_is_named(tmp_path, checkpoints):
    checkpoints.save(1, example(), None, {})
    checkpoints.finish({"step": 1, "best_step": 1})
    shutil.rmtree(checkpoints.folder / "1/state")
    with pytest.raises(UserError, match=r"cannot read a checkpoint.*sft/1/state"):
        load_params(tmp_path, "sft", example().params)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(checkpoints, monkeypatch):
    checkpoints.save(1, example(), None, {})
    checkpoints.wait()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match="cannot write a checkpoint: No space left on device"):
        checkpoints.save(2, example(), None, {})
    assert checkpoints.latest() == 1


def test_an_iterator_state_belongs_to_a_number_of_processes(checkpoints):
    checkpoints.save(1, example(), {"next": 1}, {})
    checkpoints.wait()
    files = [checkpoints.folder / f"1/data/process_{i}-of-2.json" for i in range(2)]
    (checkpoints.folder / "1/data/process_0-of-1.json").rename(files[0])
    with pytest.raises(UserError, match="process 0 of 1"):  # where the other one was is not known
        checkpoints.restore(1, example())
    files[1].write_text('{"next": 2}')
    with pytest.raises(UserError, match="process 0 of 1"):
        checkpoints.restore(1, example())
    files[1].write_text('{"next": 1}')  # both read the whole input, so any number can go on
    assert checkpoints.restore(1, example())[1] == {"next": 1}
