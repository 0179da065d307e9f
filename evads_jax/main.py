"""The one entry: `python -m evads_jax.main --config=configs/X.py[:variant] --workdir=W [--config.a.b=c …]`.

A config names its job (`config.job`); a job is a function of the config and the work directory that goes on where
an earlier call in the same directory stopped.

Exit codes: 0 done, 2 bad input (one line on stderr), 42 stopped on SIGTERM after a checkpoint (start it again).
"""

import difflib
import importlib
import inspect
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_dict, config_flags

from evads_jax import storage
from evads_jax.errors import UserError

EXIT_BAD_INPUT = 2

JOBS = {
    "experiment": "evads_jax.train.experiment:run",
    "study": "evads_jax.train.study:run",
    "tables": "evads_jax.benchmark.tables:run",
    "density": "evads_jax.density.job:run",
    "generate_qa": "evads_jax.benchmark.qa.job:run",
    "evaluate": "evads_jax.train.evaluation:run",
    "inspect": "evads_jax.train.inspection:run",
    "ask": "evads_jax.train.ask:run",
    "density_table": "evads_jax.train.density_table:run",
    "compile": "evads_jax.train.compile:run",
    "compile_sweep": "evads_jax.train.compile_sweep:run",
    "export": "evads_jax.train.export:run",
    "flor": "evads_jax.train.flor_job:run",
    "flor_study": "evads_jax.train.flor_study:run",
    "flor_landscape": "evads_jax.train.flor_landscape:run",
    "cope": "evads_jax.train.cope_run:run",
    "cope_study": "evads_jax.train.cope_study:run",
    "cope_search": "evads_jax.train.cope_search:run",
    "train_judge": "evads_jax.train.judge_job:run",
}
WITHOUT_WORKDIR = ("ask", "inspect", "export", "compile")  # jobs that only read, or write where their config says

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The job: configs/X.py or configs/X.py:variant.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the job keeps everything that it writes: a folder, or gs://BUCKET/folder."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Joins the other processes of a pod before anything else.")


def main(argv: Sequence[str]) -> None:
    """Runs the job that the config names."""
    if len(argv) > 1:
        raise UserError("unexpected argument", " ".join(argv[1:]), "options are written --name=value")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the libraries' notes on every file they write
    config = _CONFIG.value
    if config.job not in JOBS:
        raise UserError(f"unknown job {config.job!r}", "config.job", "one of " + ", ".join(sorted(JOBS)))
    if _WORKDIR.value is None and config.job not in WITHOUT_WORKDIR:
        raise UserError("no work directory", "--workdir", "name a folder, e.g. --workdir=runs/mine")
    if _DISTRIBUTED.value:
        import jax  # not before it is needed: most mistakes are told without it

        jax.distributed.initialize()
    module, function = JOBS[config.job].split(":")
    with storage.run_folder(_WORKDIR.value) as workdir:
        getattr(importlib.import_module(module), function)(config, workdir)


def load_config(spec: str) -> config_dict.ConfigDict:
    """Calls `get_config` of a config file.

    Args:
        spec: the file, with `:variant` where it takes one.

    Raises:
        UserError: there is no such file, it makes no config, or takes no variant.
    """
    path, _, variant = spec.partition(":")
    if not Path(path).is_file():
        raise UserError("no such config", path, "the ready ones are in configs/")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError("this file makes no config", path, "the ready ones are in configs/")
    if variant and not inspect.signature(get_config).parameters:
        raise UserError(f"the config takes no variant, got {variant!r}", path, "leave out the colon and what follows")
    return get_config(variant) if variant else get_config()


def check_field(config: config_dict.ConfigDict, name: str) -> None:
    """Raises `UserError` naming the nearest field where a dotted name leads to none."""
    section: object = config
    for depth, part in enumerate(parts := name.split(".")):
        keys = list(section.keys()) if isinstance(section, config_dict.ConfigDict) else []
        if part not in keys:
            nearest = difflib.get_close_matches(part, keys, n=1, cutoff=0.0)
            hint = f"did you mean config.{'.'.join([*parts[:depth], *nearest])}?" if nearest else "it has no fields"
            raise UserError(f"unknown config field config.{name}", "command line", hint)
        section = section[part]  # type: ignore[index]


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; whatever is wrong with it is a `UserError` of one line."""
    options = dict(a.lstrip("-").partition("=")[::2] for a in argv[1:])
    if not options.keys() & {"help", "helpfull", "helpshort"}:
        if not options.get("config"):
            raise UserError("no config", "--config", "name one, e.g. --config=configs/mg_grpo.py")
        config = load_config(options["config"])
        for name in (o.removeprefix("config.") for o in options if o.startswith("config.")):
            check_field(config, name)
    try:
        return flags.FLAGS(list(argv))
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error).split("\n")[0], "command line") from error


def run() -> None:
    """The console entry: parses, runs, and turns a `UserError` into one line and exit code 2."""
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        print(f"evads_jax: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    run()
