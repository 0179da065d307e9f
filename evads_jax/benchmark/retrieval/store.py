"""The files of an evaluated model, and reading them back.

W/evaluation/<stage>_<split>/summary.json      the figures (`score.summarise`), with config hash, seed, weights
W/evaluation/<stage>_<split>/queries.npz       the metrics of each query
W/evaluation/<stage>_<split>/embeddings.npz    ids, products, domains and vectors of all clips, or .safetensors
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from evads_jax.benchmark.files import read_arrays, to_json, write, write_arrays
from evads_jax.benchmark.retrieval.score import Clips, Scores
from evads_jax.data.products.records import DOMAINS
from evads_jax.errors import UserError

EXPORTS = ("npz", "safetensors")


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluated model on one split, read from its folder."""

    folder: Path
    summary: dict[str, Any]
    scores: Scores


def folder(workdir: Path, stage: str, split: str) -> Path:
    """Where a stage's evaluation on a split lies."""
    return workdir / "evaluation" / f"{stage}_{split}"


def save_result(where: Path, summary: Mapping[str, Any], scores: Scores) -> None:
    """Writes queries.npz and, last, summary.json.

    Raises:
      UserError: the folder cannot be written.
    """
    arrays = {"names": np.array(scores.names), "split": np.array(scores.split)}
    for direction, products in scores.products.items():
        arrays[f"{direction}/products"] = np.array(products)
        arrays |= {f"{direction}/{metric}": values for metric, values in scores.values[direction].items()}
    write_arrays(where / "queries.npz", arrays)
    write(where / "summary.json", to_json(dict(summary), indent=1) + "\n")


def read_result(where: Path) -> Result:
    """Reads an evaluation.

    Raises:
      UserError: there is none, or its files cannot be read.
    """
    try:
        summary = json.loads((where / "summary.json").read_text(encoding="utf-8"))
        arrays = read_arrays(where / "queries.npz")
        products: dict[str, tuple[str, ...]] = {}
        values: dict[str, dict[str, np.ndarray]] = {}
        for key, array in arrays.items():
            direction, _, metric = key.partition("/")
            if metric == "products":
                products[direction] = tuple(array.tolist())
            elif metric:
                values.setdefault(direction, {})[metric] = array
        scores = Scores(products, values, str(arrays["split"]), tuple(arrays["names"].tolist()))
    except (OSError, ValueError, KeyError) as error:
        raise UserError("no evaluation of retrieval here", str(where), "finish the run, or name another") from error
    return Result(where, summary, scores)


def embeddings_file(where: Path, form: str) -> Path:
    """Where the embeddings of an evaluation lie in one of `EXPORTS`."""
    return where / f"embeddings.{form}"


def export_embeddings(where: Path, embedded: Mapping[str, Clips], form: str) -> Path:
    """Writes the embeddings of all clips of a split; their order is that of the domains.

    Args:
      where: the folder.
      embedded: domain → its clips.
      form: "npz" (arrays ids, products, domains, vectors) or "safetensors" (tensor vectors; the others as JSON lists
        in the file's metadata).

    Raises:
      UserError: an unknown form, or the file cannot be written.
    """
    if form not in EXPORTS:
        raise UserError(f"unknown form {form!r}", "eval.export", "one of " + ", ".join(EXPORTS))
    path = embeddings_file(where, form)
    vectors = np.concatenate([embedded[d].vectors for d in DOMAINS]).astype(np.float32)
    texts = {
        "ids": [clip for d in DOMAINS for clip in embedded[d].ids],
        "products": [product for d in DOMAINS for product in embedded[d].products],
        "domains": [d for d in DOMAINS for _ in embedded[d].ids],
    }
    if form == "npz":
        write_arrays(path, {name: np.array(values) for name, values in texts.items()} | {"vectors": vectors})
    else:
        metadata = {name: json.dumps(values) for name, values in texts.items()}
        write(path, save({"vectors": vectors}, metadata))
    return path


def read_embeddings(path: Path) -> dict[str, Clips]:
    """Reads what `export_embeddings` wrote.

    Raises:
      UserError: the file is not there, or not such a file.
    """
    try:
        if path.suffix == ".npz":
            arrays = read_arrays(path)
            vectors, texts = arrays["vectors"], {n: arrays[n].tolist() for n in ("ids", "products", "domains")}
        else:
            vectors = load_file(path)["vectors"]
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            texts = {name: json.loads(header["__metadata__"][name]) for name in ("ids", "products", "domains")}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError("no exported embeddings", str(path), "run the evaluation again") from error
    rows = {d: [i for i, domain in enumerate(texts["domains"]) if domain == d] for d in DOMAINS}
    return {
        d: Clips(tuple(texts["ids"][i] for i in r), tuple(texts["products"][i] for i in r), vectors[r])
        for d, r in rows.items()
    }
