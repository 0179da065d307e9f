"""The packages import in one direction, so that a reader can take them one at a time."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "evads_jax"

# Each package may import those before it; packages in one tuple do not import each other.
LAYERS = (("data",), ("models",), ("sampling",), ("judge",), ("density", "rl", "benchmark"), ("train",), ("main",))
# Below all of them, and importing none.
FOUNDATION = ("errors", "whole", "processes", "storage", "events", "workdir")


def allowed(package: str) -> set[str]:
    """The packages that `package` may import."""
    if package in FOUNDATION:
        return set(FOUNDATION)
    for depth, layer in enumerate(LAYERS):
        if package in layer:
            return {name for below in LAYERS[:depth] for name in below} | {package, *FOUNDATION}
    raise AssertionError(f"evads_jax/{package} has no place in the order of imports; give it one in LAYERS")


def imported(source: str) -> set[str]:
    """The first-level names of `evads_jax` that a module's source imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            modules = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "evads_jax" else []
            modules = modules or [node.module or ""]
        names |= {parts[1] for m in modules if (parts := m.split("."))[0] == "evads_jax" and len(parts) > 1}
    return names


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_before_its_package(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert imported(path.read_text(encoding="utf-8")) <= allowed(package)


def test_the_check_sees_an_import_against_the_order():
    assert imported("def f():\n  from evads_jax.train import loop\n") == {"train"}
    assert imported("from evads_jax import errors\nimport evads_jax.rl.loss") == {"errors", "rl"}
    assert "train" not in allowed("rl")
