"""Puts generated tables into a document, so that no figure is typed by hand.

    python -m evads_jax.benchmark.readme README.md learning runs/tables/tables/learning.md

replaces what stands between `<!-- begin learning -->` and `<!-- end learning -->`.
"""

import sys
from pathlib import Path

from evads_jax.benchmark.files import write
from evads_jax.errors import UserError


def insert(path: Path, marker: str, markdown: str) -> bool:
    """Replaces the text between a pair of markers.

    Args:
      path: the document.
      marker: the name in its markers.
      markdown: the new text.

    Returns:
      Whether the document changed.

    Raises:
      UserError: there is no such document, or it does not hold the pair exactly once.
    """
    if not path.is_file():
        raise UserError("no such document", str(path), "name an existing one")
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {marker} -->", f"<!-- end {marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"the document needs one «{begin}» and after it one «{end}»", str(path), "add them")
    new = text[: text.index(begin) + len(begin)] + "\n" + markdown.strip("\n") + "\n" + text[text.index(end) :]
    if new != text:
        write(path, new)
    return new != text


if __name__ == "__main__":
    try:
        if len(sys.argv) != 4:
            raise UserError("three arguments are needed", "command line", "DOCUMENT MARKER TABLE.md")
        if not Path(sys.argv[3]).is_file():
            raise UserError("no such table", sys.argv[3], "write it with configs/tables.py")
        changed = insert(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text(encoding="utf-8"))
        print(f"{sys.argv[1]}: {'updated' if changed else 'up to date'}")
    except UserError as error:
        print(f"evads_jax: {error}", file=sys.stderr)
        sys.exit(2)
