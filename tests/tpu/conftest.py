"""Puts the repository on the path: `tpu` is a folder of tools, not a part of the installed package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
