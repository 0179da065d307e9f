"""Judge requests as the messages a language model gets: one text, the same for an endpoint and for a local model.

Everything from outside (events, question, references, candidates) is put between two marks that carry the request's
nonce, so that no text can close its own fence: the nonce is a digest of what candidates are compared with, and is drawn
again should it occur in any text of the request, a candidate included. So the requests about the candidates of one
question begin with the same text, whoever wrote these: a model reads it once for all of them. Inside, characters that
steer a model or its tokenizer are made visible or taken out, see `defuse`. Templates are filled in one pass; what was
filled in is never read as a template.
"""

import dataclasses
import functools
import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from importlib import resources

from evads_jax.data.annotations import grammar
from evads_jax.errors import UserError
from evads_jax.judge.verdict import JudgeRequest

LONGEST_CANDIDATE = 8_000  # characters of a candidate that a judge sees; the released limit is 1,524 new tokens

_SLOT = re.compile(r"{{(\w+)}}")
_ANGLES = str.maketrans({"<": "‹", ">": "›", "＜": "‹", "＞": "›"})
_BRACKETED = re.compile(r"\[(?=\s*(?:/?INST|BEGIN|END|SYSTEM)\b)", re.IGNORECASE)
_KEPT = "\n\t"
_APART = re.compile(r"[\W_]+")  # what may stand between the characters of a look-alike


@dataclasses.dataclass(frozen=True)
class Prompts:
    """One version of the prompts in one language.

    Attributes:
      version: its folder's name.
      language: "zh" or "en".
      digest: of the file, so that verdicts given under another wording are not taken for this one's.
      texts: name → template.
    """

    version: str
    language: str
    digest: str
    texts: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A request as messages.

    Attributes:
      system: the system message.
      user: the user message.
      nonce: the mark in its fences.
      shared: the beginning of `user` up to the first candidate.
    """

    system: str
    user: str
    nonce: str
    shared: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages in the form of chat completions."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@functools.cache
def load_prompts(version: str, language: str) -> Prompts:
    """Reads a version of the prompts.

    Raises:
      UserError: there is no such version or language.
    """
    folder = resources.files("evads_jax.judge") / "prompts"
    file = folder / version / f"{language}.toml"
    if not re.fullmatch(r"\w+", version) or not file.is_file():
        known = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        raise UserError(
            f"no judge prompts {version!r} for language {language!r}", "judge.prompts", f"one of {', '.join(known)}"
        )
    data = file.read_bytes()
    texts = {name: text.strip("\n") for name, text in tomllib.loads(data.decode()).items()}
    return Prompts(version, language, hashlib.sha256(data).hexdigest()[:16], texts)


def fill(template: str, **values: str) -> str:
    """The template with its slots filled, in one pass.

    Raises:
      KeyError: the template has a slot without a value.
    """
    return _SLOT.sub(lambda slot: values[slot[1]], template)


def defuse(text: str) -> str:
    """A text that a model reads as text only.

    Invisible and control characters go (line ends and tabs stay); angle brackets, of which tags and most special tokens
    are made, become single guillemets; brackets that begin a mark of ours or of a chat template become parentheses.
    """
    if text.isascii() and text.isprintable():
        plain = text
    else:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        plain = "".join(c for c in text if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return _BRACKETED.sub("(", plain.translate(_ANGLES))


def render(request: JudgeRequest, prompts: Prompts, complaint: str = "") -> Rendered:
    """One part of one candidate, to be scored alone.

    Args:
      request: what is asked.
      prompts: in which words.
      complaint: why the first reply could not be used (our words, never the model's); "" for a first request.
    """
    return _render([request], prompts, request.aspect, "again" if complaint else "reply", complaint)


def render_joint(answer: JudgeRequest, trace: JudgeRequest, prompts: Prompts, complaint: str = "") -> Rendered:
    """Answer and trace of one completion, to be scored in one reply; see `render`."""
    return _render([answer, trace], prompts, "joint", "again_joint" if complaint else "reply_joint", complaint)


def render_likelihood(request: JudgeRequest, prompts: Prompts, longest: int = LONGEST_CANDIDATE) -> Rendered:
    """A request whose continuation is the score itself; for judges that are asked for probabilities.

    Args:
      request: what is asked.
      prompts: in which words.
      longest: characters of the candidate that are shown.
    """
    return _render([request], prompts, request.aspect, "likelihood", "", longest)


def _render(
    requests: list[JudgeRequest],
    prompts: Prompts,
    task: str,
    ending: str,
    complaint: str,
    longest: int = LONGEST_CANDIDATE,
) -> Rendered:
    texts, first = prompts.texts, requests[0]
    events = "\n".join(grammar.format_line(event) for event in first.events)
    outside = {"events": events, "question": first.question, "clues": first.clues, "reference": first.reference}
    known = {name: defuse(text).strip() for name, text in outside.items()}
    candidates: dict[str, str] = {}
    shortened: dict[str, str] = {}
    for request in requests:
        name: str = request.aspect if len(requests) > 1 else "candidate"
        text = defuse(request.candidate).strip()
        candidates[name] = text[:longest]
        if len(text) > longest:
            shortened[name] = "\n" + fill(texts["shortened"], count=str(len(text) - longest))
    nonce = make_nonce(list(known.values()), list(candidates.values()))
    inside = known | candidates
    values = {n: fenced(n, t, nonce, texts["none"]) + shortened.get(n, "") for n, t in inside.items()}
    evidence = fill(texts["evidence"], **values)
    parts = [evidence, fill(texts[task], **values), fill(texts[ending], complaint=complaint)]
    shared = f"{evidence}\n\n{_SLOT.split(texts[task], maxsplit=1)[0]}"
    return Rendered(fill(texts["system"], nonce=nonce), "\n\n".join(parts), nonce, shared)


def fenced(name: str, text: str, nonce: str, none: str) -> str:
    """A text between its marks; `none` in place of an empty one. The text must have gone through `defuse`."""
    return f"[BEGIN {name} {nonce}]\n{text}\n[END {name} {nonce}]" if text else none


def make_nonce(texts: Sequence[str], candidates: Sequence[str] = ()) -> str:
    """A mark that stands in none of the texts and candidates.

    The same texts get the same one, whatever the candidates, unless it stands in one of these.
    """
    material = "\0".join(texts).encode("utf-8", "surrogatepass")
    # Also a look-alike of it (full width, with spaces or signs between) shall stand in none.
    held = [_APART.sub("", unicodedata.normalize("NFKC", text).casefold()) for text in (*texts, *candidates)]
    for attempt in range(1 << 16):
        nonce = hashlib.sha256(material + bytes([attempt % 256, attempt // 256])).hexdigest()[:16]
        if not any(nonce in text for text in held):
            return nonce
    raise AssertionError("the texts hold all digests that are tried")
