"""A small retrieval world: clips whose embeddings are their product's direction and noise."""

import json

import numpy as np

from evads_jax.benchmark.retrieval import store
from evads_jax.benchmark.retrieval.score import Clips, score, summarise
from evads_jax.data.products.records import DOMAINS


def embed(noise, seed=0, products=12, clips=2, missing=()):
    """Domain → clips; `missing` names (domain, product) without any."""
    rng = np.random.default_rng([seed, 0])
    centres = rng.normal(size=(products, 8))
    noisy = np.random.default_rng([seed, 1])
    embedded = {}
    for domain in DOMAINS:
        kept = [(p, c) for p in range(products) for c in range(clips) if (domain, p) not in missing]
        vectors = np.array([centres[p] + noise * noisy.normal(size=8) for p, _ in kept])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = tuple(f"{p:02d}/{domain}{c}" for p, c in kept)
        embedded[domain] = Clips(ids, tuple(f"{p:02d}" for p, _ in kept), vectors.astype(np.float32))
    return embedded


def write_run(folder, embedded, seed, stage="trained", split="test", replicates=200, steps=4, shards="", **model):
    """A run's folder as the job leaves it, as far as tables read it."""
    model = {"form": "paper", "shared": True, "modality": "both"} | model
    loss = {"pairs": {"video_live": 1.0, "page_text_live": 0.0}, "classification": 0.1, "temperature": 0.05}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model": model, "loss": loss, "run": {"seed": seed}, "cope": {"max_steps": steps}}
    (folder / "config.json").write_text(json.dumps(config))
    scores = score(embedded, draws=5, seed=0, shards=shards)
    protocol = {"draws": 5, "replicates": replicates, "seed": seed}
    summary = {"seed": seed, "protocol": protocol, **summarise(scores, replicates)}
    store.save_result(store.folder(folder, stage, split), summary, scores)
    return scores
