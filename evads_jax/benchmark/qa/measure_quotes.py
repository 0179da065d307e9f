"""How much of what the released clues put in quotation marks stands in their videos' events; writes the tables.

    python -m evads_jax.benchmark.qa.measure_quotes --annotations=DIR --out=docs/qa_quotes.md

What stands between the two markers of the file is replaced; the rest is left alone. With `--sample` it prints a
seeded sample of strings that were not found, each in its sentence, for labelling; `quote_labels.tsv`, beside
this module, holds the labels that the second table counts.
"""

import argparse
import collections
import csv
import dataclasses
import random
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from evads_jax.benchmark.qa import quotes
from evads_jax.data.annotations import read_rl
from evads_jax.data.records import Example
from evads_jax.errors import UserError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SAMPLE, SEED = 100, 0
KINDS = ("exact", "fuzzy", "none")
LABELS = {
    "quotation": "a quotation: the sentence says that it is written or said",
    "summary": "the sense of something written or said, in other words",
    "picture": "something seen: an action, an object, a style",
    "term": "rhetoric: a term, a label or an emphasis of the annotator's own",
}
_QUOTED = re.compile(r"“([^“”]+)”|‘([^‘’]+)’")
_PARTS = re.compile(r"…+|\.{3,}|/|\+")


@dataclasses.dataclass(frozen=True)
class Quoted:
    """A string in quotation marks.

    Attributes:
      id: the question's.
      text: the string.
      sentence: its surroundings.
      kind: "exact", "fuzzy" or "none": how it stands anywhere in its video's events.
      places: "ocr", "asr", both or neither, where it is exact or fuzzy.
    """

    id: str
    text: str
    sentence: str
    kind: str
    places: tuple[str, ...]


def quoted(example: Example) -> list[Quoted]:
    """The quoted strings of an example's clues that have at least two letters, looked up in its whole video.

    A string with an ellipsis or a slash is looked up part by part, and is as good as its worst part.
    """
    events = (*example.evidence, *example.events)
    written = [text for event in events for text in [*event.ocr, "".join(event.ocr)]]
    spoken = ["".join(event.asr or "" for event in group) for group in (example.evidence, example.events)]
    clues, result = example.question.clues, []
    for match in _QUOTED.finditer(clues):
        text = match[1] or match[2]
        parts = [part for part in _PARTS.split(text) if len(quotes.normalise(part)) >= quotes.SHORTEST]
        if not parts:
            continue
        found = {"ocr": _worst(parts, written), "asr": _worst(parts, spoken)}
        kind = KINDS[min(map(KINDS.index, found.values()))]
        places = tuple(place for place, how in found.items() if how != "none")
        around = clues[max(match.start() - 30, 0) : match.end() + 20]
        result.append(Quoted(example.question.id, text, around, kind, places))
    return result


def _worst(parts: Sequence[str], texts: Sequence[str]) -> str:
    """How the parts stand in any of the texts."""
    kinds = []
    for part in parts:
        best = max((quotes.find(part, text) for text in texts), key=lambda found: found.similarity, default=None)
        kinds.append("none" if best is None else best.kind)
    return KINDS[max(map(KINDS.index, kinds))]


def read_labels() -> dict[tuple[str, str], str]:
    """The labels, given by a language model and unchecked: (question's id, string) → label."""
    file = resources.files("evads_jax.benchmark.qa") / "quote_labels.tsv"
    rows = csv.reader(file.read_text(encoding="utf-8").splitlines(), delimiter="\t")
    return {(row[0], row[1]): row[2] for row in rows}


def sample(found: Sequence[Quoted]) -> list[Quoted]:
    """The seeded sample of strings that were not found."""
    missing = [quote for quote in found if quote.kind == "none"]
    return random.Random(SEED).sample(missing, min(SAMPLE, len(missing)))


def report(found: Sequence[Quoted], labels: dict[tuple[str, str], str], rows: int) -> str:
    """The two tables."""
    kinds = collections.Counter(quote.kind for quote in found)
    places = collections.Counter((quote.kind, " and ".join(quote.places)) for quote in found)
    lines = [
        f"{len(found):,} strings in quotation marks in {rows} clues ({len({q.id for q in found})} clues have one).",
        "",
        "| in the events of its video | strings | share | in text | in speech | in both |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, name in zip(KINDS, ("exactly", "fuzzily", "not at all"), strict=True):
        where = [places[kind, place] for place in ("ocr", "asr", "ocr and asr")]
        lines.append(
            f"| {name} | {kinds[kind]} | {kinds[kind] / len(found):.1%} | " + " | ".join(map(str, where)) + " |"
        )
    drawn = sample(found)
    counted = collections.Counter(labels.get((quote.id, quote.text), "not labelled") for quote in drawn)
    lines += [
        "",
        f"{len(drawn)} of those not found, drawn with seed {SEED} and labelled by a language model "
        "in one pass, not yet checked by a person:",
        "",
    ]
    lines += ["| label | strings |", "|---|---:|"]
    lines += [f"| {LABELS[label]} | {counted[label]} |" for label in LABELS]
    if counted["not labelled"]:
        lines.append(f"| not labelled | {counted['not labelled']} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and writes, or prints the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sample", action="store_true")
    arguments = parser.parse_args()
    examples = read_rl(arguments.annotations / "EVAds_RL.parquet").examples
    found = [quote for example in examples for quote in quoted(example)]
    if arguments.sample:
        for quote in sample(found):
            print(f"{quote.id}\t{quote.text}\t{' '.join(quote.sentence.split())}")
    if arguments.out:
        text = arguments.out.read_text(encoding="utf-8") if arguments.out.is_file() else ""
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            raise UserError(f"the document needs one «{BEGIN}» and one «{END}»", str(arguments.out))
        before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
        tables = report(found, read_labels(), len(examples))
        arguments.out.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
        print(tables)


if __name__ == "__main__":
    main()
