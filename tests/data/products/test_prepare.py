"""Products from a config to shards: made once, checked when foreign, splits apart."""

import runpy
from pathlib import Path

import pytest

from evads_jax.data.products.prepare import open_splits, prepare, survey
from evads_jax.data.products.records import DOMAINS
from evads_jax.errors import UserError

from .rope_files import write_pictures, write_rope

CONFIG = Path(__file__).parents[3] / "configs" / "cope.py"


def small_config():
    config = runpy.run_path(str(CONFIG))["get_config"]("smoke")
    config.model.frame_size = 16
    config.data.products_train, config.data.products_validation, config.data.products_test = 5, 3, 3
    return config


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    lines = []
    return folder, prepare(small_config(), folder, lines.append), lines


def test_every_split_has_its_products_and_none_shares_one(prepared):
    _, sources, lines = prepared
    names = {split: {source[i].product for i in range(len(source))} for split, source in sources.items()}
    assert {split: len(found) for split, found in names.items()} == {"train": 5, "validation": 3, "test": 3}
    assert len(set.union(*names.values())) == 11
    assert lines[-1] == "products: 5 train, 3 validation, 3 test"


def test_a_survey_counts_what_a_split_holds(prepared):
    _, sources, _ = prepared
    counts = survey(sources["train"], bool)
    assert [counts[name] for name in ("products", *DOMAINS)] == [5, 10, 5, 5]
    assert [counts[pair] for pair in ("page_and_video", "page_and_live", "video_and_live")] == [5, 5, 5]
    assert "without_pair" not in counts


def test_a_survey_counts_the_texts_without_a_token_whatever_their_letters(prepared):
    _, sources, _ = prepared
    assert survey(sources["train"], lambda text: False)["without_text"] == 20
    assert "without_text" not in survey(sources["train"], lambda text: True)


def test_finished_shards_are_used_again_and_those_of_other_pictures_refused(prepared):
    folder, sources, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in (folder / "products").rglob("*.array_record")}
    config = small_config()
    prepare(config, folder, lambda line: None)
    config.data.shards = str(folder / "products")
    again = prepare(config, folder / "elsewhere", lambda line: None)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "products").rglob("*.array_record")}
    assert again["test"][0] == sources["test"][0] == open_splits(folder / "products")["test"][0]
    config.model.frame_size = 32
    with pytest.raises(UserError, match="have size 16, the config asks for 32"):
        prepare(config, folder, lambda line: None)
    config.model.frame_size, config.run.language = 16, "zh"
    with pytest.raises(UserError, match="have language 'en', the config asks for 'zh'"):
        prepare(config, folder, lambda line: None)


def lost_of(product, sources):
    (found,) = (s[i] for s in sources.values() for i in range(len(s)) if s[i].product == product)
    return [lost.detail for lost in found.lost]


def test_rope_is_held_out_by_product_and_what_has_no_pair_is_counted_or_refused(tmp_path):
    write_rope(tmp_path / "rope")
    write_pictures(tmp_path / "pictures")
    for name in ("pages", "videos", "lives"):  # more products, so that some can be held out
        path = tmp_path / "rope" / f"training_product_{name}_pair.txt"
        path.write_text(path.read_text() + "".join(f"{name}{i}\tX{i}\n" for i in range(20)))
    for name in ("page_titles", "video_asrs", "live_asrs"):
        path = tmp_path / "rope" / f"training_{name}.txt"
        kind = {"page_titles": "pages", "video_asrs": "videos", "live_asrs": "lives"}[name]
        path.write_text(path.read_text() + "".join(f"{kind}{i}\ttext {i}\n" for i in range(20)))
    for path in (tmp_path / "rope").glob("training_*.txt"):
        text = path.read_text().replace("X", "Y") if "pair" in path.name else path.read_text()
        text = text.replace("\tA\n", "\tD\n").replace("\tB\n", "\tE\n").replace("\tC\n", "\tF\n")
        path.with_name(path.name.replace("training", "test")).write_text(text)
    config = small_config()
    data = config.data
    data.source, data.rope, data.pictures = "rope", str(tmp_path / "rope"), str(tmp_path / "pictures")
    data.products_train = data.products_validation = data.products_test = 0
    data.held_out, data.max_bad_share = 0.3, 0.5
    lines = []
    sources = prepare(config, tmp_path, lines.append)
    names = {split: {source[i].product for i in range(len(source))} for split, source in sources.items()}
    assert names["train"] | names["validation"] == {"A", *(f"X{i}" for i in range(20))}
    assert names["validation"]
    assert not names["train"] & names["validation"]
    assert any("have no pair and are left out, the first" in line for line in lines)
    assert lost_of("A", sources) == []
    (tmp_path / "pictures" / "p1.jpg").unlink()
    assert lost_of("A", prepare(config, tmp_path, lines.append)) == ["p1.jpg"]  # what changed is read again
    data.max_bad_share = 0.0
    with pytest.raises(UserError, match="have no pair"):
        prepare(config, tmp_path / "again", lines.append)
    data.on_bad = "refuse"
    with pytest.raises(UserError, match=r"without any pair|missing"):
        prepare(config, tmp_path / "strict", lines.append)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": "nonsense"}, "unknown source"),
        ({"source": "rope"}, "not named"),
        ({"on_bad": "ignore"}, "unknown choice"),
        ({"products_test": 0}, "without products"),
        ({"lives": 0}, "clips in"),
    ],
)
def test_a_config_that_cannot_work_is_one_line(tmp_path, change, told):
    config = small_config()
    config.data.update(change)
    with pytest.raises(UserError, match=told) as caught:
        prepare(config, tmp_path, lambda line: None)
    assert "\n" not in str(caught.value)
