"""The one exception that a user is meant to read.

Anything that is wrong with what the user gave (a config field, a file, a folder) is raised as `UserError` and
printed by `evads_jax.main` as a single line: what is wrong, where, and what to do. Any other exception is a bug
and keeps its traceback.
"""


class UserError(Exception):
    """Bad input, told in one line.

    Args:
      what: what is wrong, e.g. "no such parquet file".
      where: the file, row, field or step it was found in.
      do: what the user can do about it; empty when there is nothing to add.
    """

    def __init__(self, what: str, where: str = "", do: str = ""):
        self.what, self.where, self.do = what, where, do
        line = what + (f" [{where}]" if where else "") + (f": {do}" if do else "")
        super().__init__(" ".join(line.split()))
