"""Judges by name."""

from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.verdict import Judge


def make_judge(config: ConfigDict, language: str) -> Judge:
    """The judge that a configuration asks for.

    Args:
      config: the section `judge`; `kind` names the judge.
      language: "zh" or "en".

    Raises:
      UserError: an unknown kind or language.
    """
    if language not in ("zh", "en"):
        raise UserError(f"unknown language {language!r}", "run.language", "use zh or en")
    if config.kind == "lexical":
        return LexicalJudge(language)
    raise UserError(f"unknown judge {config.kind!r}", "judge.kind", "use lexical")
