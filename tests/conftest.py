"""Settings that every test shares."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import settings

# Set by hand too, so that a bare `pytest` profits from the compilation cache that `make test` names.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Programs that tests start find `tests` as the tests themselves do.
_ROOT = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])

# No deadline: the first example of a property pays for a compilation.
settings.register_profile("evads", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("evads")


@pytest.fixture(scope="session")
def released_annotations() -> Path:
    """The folder of the released E-VAds annotations; skips where it is not at hand."""
    folder = Path(os.environ.get("EVADS_ANNOTATIONS", Path(__file__).parents[2] / "shared" / "data" / "evads"))
    if not (folder / "EVAds_SFT.parquet").exists():
        pytest.skip("the released annotations are not here; name their folder in EVADS_ANNOTATIONS")
    return folder


@pytest.fixture(scope="session")
def on_eight_devices():
    """Runs Python in a process of eight forced devices, little optimised, with `tests` on its path; what it printed."""

    def run(*arguments, timeout=300):
        environment = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    return run
