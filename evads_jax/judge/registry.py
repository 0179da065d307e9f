"""Judges by name."""

from pathlib import Path

from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.verdict import Judge


def make_judge(
    config: ConfigDict, language: str, workdir: Path | None = None, repeat: int = 0, section: str = "judge"
) -> Judge:
    """The judge that a configuration asks for.

    Args:
      config: the section; `kind` names the judge.
      language: "zh" or "en".
      workdir: the run's folder, under which `openai` counts its spending over restarts.
      repeat: number of the repetition; each has verdicts of its own. The other judges always say the same.
      section: what the section is called, for messages.

    Raises:
      UserError: an unknown kind or language; or the judge cannot be used: no key, unreachable host, unknown model.
    """
    if language not in ("zh", "en"):
        raise UserError(f"unknown language {language!r}", "run.language", "use zh or en")
    if config.kind == "lexical":
        return LexicalJudge(language)
    # Imported where asked for: the default needs neither HTTP nor a model.
    if config.kind == "openai":
        from evads_jax.judge import openai

        return openai.from_config(config, language, workdir, repeat=repeat, section=section)
    if config.kind == "local":
        from evads_jax.judge import local

        return local.load(config.path or "", language)
    raise UserError(f"unknown judge {config.kind!r}", f"{section}.kind", "use lexical, openai or local")
