"""The job `flor_landscape`: the loss around finished few-shot runs, as curves and as a table.

W/landscape/<network>_<norm>_<seed>.json   the curves of a run
W/landscape.html                           charts: a line for each norm, the mean over its seeds
W/tables/flor_landscape.*                  how much the loss rises on the way
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from evads_jax import storage
from evads_jax import workdir as run_folder
from evads_jax.benchmark import files, html, tables
from evads_jax.benchmark.chart import Series, line_chart
from evads_jax.benchmark.fewshot import embed, landscape, sample
from evads_jax.benchmark.fewshot.tables import NETWORKS, NORMS
from evads_jax.benchmark.table import Cell, Table
from evads_jax.data.fewshot.prepare import prepare
from evads_jax.data.fewshot.sets import ImageSet
from evads_jax.errors import UserError
from evads_jax.train import flor_job, results
from evads_jax.train.checkpoint import finished
from evads_jax.train.opening import teller

WALKS = {
    "between_norms": "Loss between the norm of the batch (0) and that of one image (1)",
    "around": "Loss after a random change of the representation, by its length",
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """The loss around one run.

    Attributes:
      network, norm, seed: which run.
      losses: walk → set → the loss at each place.
    """

    network: str
    norm: str
    seed: int
    losses: Mapping[str, Mapping[str, list[float]]]


def run(config: ConfigDict, workdir: Path) -> None:
    """Measures the runs that are not measured yet, and draws all.

    Args:
      config: see `landscape` in configs/flor.py.
      workdir: where the results go.

    Raises:
      UserError: no runs, an unfinished one, two of one network, norm and seed or of different sets, or image sets that
        cannot be made.
    """
    say = teller(Console())
    folders = tables.find_runs(config.runs, ("config.json", "images"))
    configs = [_config(folder) for folder in folders]
    _check(folders, configs)
    run_folder.claim(workdir, config)
    curves = [_measured(config, workdir, *pair, say) for pair in zip(folders, configs, strict=True)]
    curves.sort(key=lambda c: (list(NETWORKS).index(c.network), list(NORMS).index(c.norm), c.seed))
    files.write(workdir / "landscape.html", page(config, curves))
    paths = tables.write(workdir / "tables", "flor_landscape", [table(config, curves)])
    say(f"curves: {workdir / 'landscape.html'}, table: {paths[0]}")


def page(config: ConfigDict, curves: Sequence[Curves]) -> str:
    """The charts of each network as one document."""
    places = {"between_norms": config.weights, "around": config.lengths}
    sections = []
    for network in dict.fromkeys(c.network for c in curves):
        mine = [c for c in curves if c.network == network]
        charts = []
        for walk, title in WALKS.items():
            shown = []
            for name in mine[0].losses[walk]:
                lines = [
                    Series(NORMS[n], tuple(zip(places[walk], _mean(mine, n, walk, name), strict=True)))
                    for n in _norms(mine)
                ]
                shown.append(line_chart(name, lines))
            charts.append(f'<h3>{html.escape(title)}</h3><div class="charts">{"".join(shown)}</div>')
        sections.append((network, NETWORKS[network], "".join(charts)))
    seeds = ", ".join(map(str, sorted({c.seed for c in curves})))
    about = f"<p>Cross-entropy of nearest prototypes over {config.episodes} episodes, mean over seeds {seeds}.</p>"
    return html.page("The loss around few-shot networks", about, sections)


def table(config: ConfigDict, curves: Sequence[Curves]) -> Table:
    """How far the loss rises between the norms, and by a change as long as the representation."""
    names = list(curves[0].losses["around"])
    unit = int(np.argmin([abs(length - 1) for length in config.lengths]))
    rows: list[tuple[Cell | str, ...]] = []
    for network in dict.fromkeys(c.network for c in curves):
        mine = [c for c in curves if c.network == network]
        for norm in _norms(mine):
            hills, spans, rises = [], [], []
            for name in names:
                walks = [c.losses["between_norms"][name] for c in mine if c.norm == norm]
                hills.append(Cell(float(np.mean([max(w) - max(w[0], w[-1]) for w in walks])), signed=True))
                spans.append(Cell(float(np.mean([max(w) - min(w) for w in walks]))))
                walk = _mean(mine, norm, "around", name)
                rises.append(Cell(walk[unit] - walk[0], signed=True))
            rows.append((NETWORKS[network], NORMS[norm], *hills, *spans, *rises))
    columns = ("network", "norm", *(f"{what}, {name}" for what in ("hill", "span", "rise") for name in names))
    notes = (
        "Hill: the highest loss between the two norms minus that of the worse end; 0 where no place between them is "
        "worse. Span: its highest minus its lowest loss; a network that works only at its own end has a large one and "
        f"no hill. Rise: the loss after a random change of {config.lengths[unit]:g} times the representation's length "
        "minus that before. Means over the seeds, without intervals.",
    )
    return Table("flor_landscape", "The loss around the representation", columns, tuple(rows), notes)


def _norms(curves: Sequence[Curves]) -> list[str]:
    return list(dict.fromkeys(c.norm for c in curves))


def _mean(curves: Sequence[Curves], norm: str, walk: str, name: str) -> list[float]:
    return np.mean([c.losses[walk][name] for c in curves if c.norm == norm], axis=0).tolist()


def _config(folder: Path) -> ConfigDict:
    """The config of a finished few-shot run."""
    config = results.read_config(folder)
    if config.get("job") != "flor" or finished(folder, flor_job.STAGE) is None:
        raise UserError("no finished few-shot run", storage.name_of(folder), "give folders of runs of configs/flor.py")
    return config


def _check(folders: Sequence[Path], configs: Sequence[ConfigDict]) -> None:
    """Refuses runs that cannot be averaged or drawn in one chart."""
    found: dict[tuple[str, str, int], Path] = {}
    for folder, config in zip(folders, configs, strict=True):
        network, norm, seed = key = config.model.network, config.model.norm, config.run.seed
        if (other := found.setdefault(key, folder)) != folder:
            what = f"two runs of {network}, {norm} have the seed {seed}"
            raise UserError(what, f"{other}, {folder}", "leave one out")
        sets = [(c.data.train, *c.data.targets) for c in (configs[0], config)]
        if sets[0] != sets[1]:
            what = f"runs of different sets: {', '.join(sets[0])}, and {', '.join(sets[1])}"
            raise UserError(what, f"{folders[0]}, {folder}", "give runs of one kind")


def _measured(
    config: ConfigDict, workdir: Path, folder: Path, theirs: ConfigDict, say: Callable[[str], None]
) -> Curves:
    """The curves of a run: those that are kept, else new ones."""
    network, norm, seed = theirs.model.network, theirs.model.norm, theirs.run.seed
    path = workdir / "landscape" / f"{network}_{norm}_{seed}.json"
    asked = {
        **{name: value for name, value in config.to_dict().items() if name != "runs"},
        "run": storage.name_of(folder.resolve()),
        "config": files.config_hash(theirs.to_dict()),
    }
    asked = json.loads(json.dumps(asked, default=str))
    if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8")))["asked"] == asked:
        return Curves(network, norm, seed, kept["losses"])
    names = [theirs.data.train, *theirs.data.targets]
    root = flor_job.images_folder(theirs, folder)
    sets = prepare(theirs.data, names, theirs.model.image_size, root, say)
    model, params = flor_job.trained(theirs, folder, len(sets[theirs.data.train].classes))
    losses: dict[str, dict[str, list[float]]] = {walk: {} for walk in WALKS}
    for name in names:
        images, labels = _some(sets[name], config.images_per_class, config.seed)
        episodes = sample(
            labels, sets[name].classes, ways=config.ways, shots=config.shots, queries=config.queries,
            count=config.episodes, seed=config.seed, too_small="drop",
        )  # fmt: skip
        losses["between_norms"][name] = landscape.between_norms(
            params, model, images, episodes, config.weights, config.temperature, config.batch
        )
        features = embed(params, model, images, config.batch)
        losses["around"][name] = landscape.around(
            features, episodes, config.lengths, config.draws, config.seed, config.temperature
        )
        say(f"{network}, {norm}, seed {seed}: {name}")
    files.write(path, files.to_json({"asked": asked, "losses": losses}) + "\n")
    return Curves(network, norm, seed, losses)


def _some(images: ImageSet, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many images of each class, and their labels."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(images.labels == c))[:each] for c in range(len(images.classes))]
    kept = np.sort(np.concatenate(drawn))
    return np.asarray(images.images[kept]), images.labels[kept]
