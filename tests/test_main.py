"""The command line says in one line what is wrong with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from evads_jax import main
from evads_jax.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = str(CONFIGS / "mg_grpo.py")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no config"),
        (["--config=configs/nowhere.py"], "no such config [configs/nowhere.py]"),
        ([f"--config={CONFIG}", "--config.rl.learning_rat=1"], "did you mean config.rl.learning_rate?"),
        ([f"--config={CONFIG}", "--config.rll.group=4"], "did you mean config.rl?"),
        ([f"--config={CONFIG}", "--config.rl.learning_rate=high"], "config.rl.learning_rate"),
        ([f"--config={CONFIG}:no_such_variant"], "no_such_variant"),
        ([f"--config={CONFIGS / 'density.py'}:dinov3"], "takes no variant, got 'dinov3'"),
        ([f"--config={CONFIGS / 'variants' / 'qwen.py'}"], "makes no config"),
        ([f"--config={CONFIGS / 'compile.py'}:model=tiny,layers=two"], "layers=two"),
        ([f"--config={CONFIGS / 'compile.py'}:model=tiny,mesh=fsdp:0"], "cannot read the mesh 'fsdp:0'"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments, told):
    with pytest.raises(UserError, match=r".+") as caught:
        main.parse_flags(["evads_jax", *arguments])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_input_ends_the_process_with_code_2_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "evads_jax.main", f"--config={CONFIG}", "--config.rl.grp=3", "--workdir=/dev/null/x"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == main.EXIT_BAD_INPUT
    assert done.stderr.strip().startswith("evads_jax: unknown config field config.rl.grp")
    assert "Traceback" not in done.stderr
