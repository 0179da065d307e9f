"""The job `cope_search`: the nearest products of a clip, as `W/search.html` and on the terminal."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console

from evads_jax import storage
from evads_jax import workdir as run_folder
from evads_jax.benchmark import files
from evads_jax.benchmark.retrieval.page import nearest_products, result_page
from evads_jax.benchmark.retrieval.score import Clips
from evads_jax.data import bucket
from evads_jax.data.fewshot.reading import READING_ERRORS
from evads_jax.data.media import encode_jpeg
from evads_jax.data.products.catalogue import SPLITS
from evads_jax.data.products.prepare import FOLDER
from evads_jax.data.products.records import DOMAINS, ProductClip
from evads_jax.data.products.render import resized
from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.train import results
from evads_jax.train.checkpoint import load_params
from evads_jax.train.cope_run import STAGE, CopeRun
from evads_jax.train.opening import Opened, teller


def run(config: ConfigDict, workdir: Path) -> None:
    """Searches the clips of a run's split.

    Args:
      config: see configs/cope.py:search.
      workdir: where the page goes.

    Raises:
      UserError: no such run, split, domain, clip or picture, or nothing to look for.
    """
    for field in ("gallery", "domain"):
        if config[field] not in DOMAINS:
            raise UserError(f"unknown domain {config[field]!r}", f"config.{field}", "one of " + ", ".join(DOMAINS))
    if not config.run:
        raise UserError("no run to search with", "config.run", "name the folder of a finished run")
    folder, console = storage.fetched(config.run, run_folder.CONFIG), Console()
    trained = results.read_config(folder)
    if trained.get("job") != "cope":
        raise UserError(f"a run of the job {trained.get('job')!r}", config.run, "name a run of configs/cope.py")
    # The run's own shards, wherever it is searched from; nothing is drawn or trained anew.
    held = trained.data.shards or storage.name_of(folder / FOLDER)
    products = bucket.fetched(held, SPLITS)
    if lacking := [split for split in SPLITS if not (products / split / "manifest.json").is_file()]:
        what = f"no {lacking[0]} products of this run"
        raise UserError(what, held, "search from the folder that it was trained in")
    trained.data.shards = str(products)
    if not trained.tokenizer.path:
        trained.tokenizer.path = storage.name_of(folder / "tokenizer")
    trained.start.visual = trained.start.text = None  # its checkpoint holds them
    run = CopeRun.make(trained, folder, Opened(EventLog(folder, writes=False), console, teller(console)))
    if config.split not in run.sources:
        raise UserError(f"unknown split {config.split!r}", "config.split", "one of " + ", ".join(run.sources))
    source = run.sources[config.split]
    clips = [clip for i in range(len(source)) for clip in source[i].clips]
    query = _query(config, clips, run.model.frame_size)
    offered = [clip for clip in clips if clip.domain == config.gallery and clip.id != query.id]
    if not offered:
        raise UserError(f"no {config.gallery} clips in {config.split}", "config.gallery", "search another domain")
    params = load_params(folder, STAGE, run.parameters())
    with run.on_mesh():
        vectors = run.encoder(params, offered, config.gallery)
        asked = run.encoder(params, [query], query.domain)[0]
    gallery = Clips(tuple(clip.id for clip in offered), tuple(clip.product for clip in offered), vectors)
    found = nearest_products(asked, gallery, config.count)
    about = f"{folder.resolve().name}: {len(offered)} {config.gallery} clips of {len(source)} {config.split} products"
    files.write(workdir / "search.html", result_page(query, found, offered, about))
    for place, one in enumerate(found, 1):
        console.print(f"{place:3d}  {one.similarity:6.3f}  {one.product}  {offered[one.clips[0]].text}", markup=False)
    console.print(f"pictures in {workdir / 'search.html'}", markup=False)


def _query(config: Any, clips: list[ProductClip], size: int) -> ProductClip:
    if config.clip and (config.picture or config.text):
        raise UserError("a clip of the data, or a picture and a text, not both", "config.clip", "leave one out")
    if config.clip:
        for clip in clips:
            if clip.id == config.clip:
                return clip
        raise UserError(f"no clip {config.clip!r} in {config.split}", "config.clip", f"e.g. {clips[0].id}")
    if not config.picture and not config.text:
        raise UserError("nothing to look for", "config.clip", "name a clip, a picture or a text")
    frames: tuple[bytes, ...] = ()
    if config.picture:
        try:
            with Image.open(config.picture) as image:
                picture = np.asarray(image.convert("RGB"))
        except READING_ERRORS as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the picture cannot be read ({reason})", str(config.picture)) from error
        frames = (encode_jpeg(resized([picture], size)[0]),)
    return ProductClip("query", "", config.domain, frames, config.text or "")
