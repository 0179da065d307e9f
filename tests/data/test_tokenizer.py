"""Tokenizers: any text survives, no text becomes a special token, and training is deterministic."""

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data import tokenizer as module
from evads_jax.data.prompts import constants, corpus
from evads_jax.data.records import Event, Example, Question
from evads_jax.data.tokenizer import HuggingFaceTokenizer, load_tokenizer, train_sentencepiece
from evads_jax.errors import UserError

SPECIAL = (*module._CONTROL, module.PAD, *module.TAGS)
COLOURS, PRODUCTS = ("red", "blue", "green", "white"), ("mug", "scarf", "lamp", "红色", "保温杯")


def examples():
    for i, (colour, product) in enumerate((c, p) for c in COLOURS for p in PRODUCTS):
        question = Question(
            str(i), f"What colour is the {product}?", f"The {product} is {colour}.", f"It shows a {colour} {product}."
        )
        yield Example(question, f"{i}.mp4", "kitchen", 6, (Event(0, 1, ("BUY NOW",), f"look at this {product}"),))


# The pre-tokenizer of Qwen's tokenizer.json, on a byte-level vocabulary without merges.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen_like() -> str:
    """A tokenizer.json with Qwen's added tokens: `<think>` is added, but not special."""
    pre = tokenizers.pre_tokenizers
    alphabet = sorted(pre.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)}
    merges = [("Ċ", "Ċ"), ("t", "h"), ("Ġ", "th"), ('"', "Ċ")]
    vocabulary |= {"".join(pair): len(alphabet) + i for i, pair in enumerate(merges)}
    t = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    t.normalizer = tokenizers.normalizers.NFC()
    split = pre.Split(tokenizers.Regex(QWEN_SPLIT), "isolated")
    t.pre_tokenizer = pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = tokenizers.decoders.ByteLevel()
    t.add_special_tokens(
        [tokenizers.AddedToken(s, normalized=False, special=True) for s in (*module._CONTROL, module.PAD)]
    )
    t.add_tokens([tokenizers.AddedToken(s, normalized=False, special=False) for s in ("<think>", "</think>")])
    return t.to_str()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return train_sentencepiece(corpus(examples()), 1024, tmp_path_factory.mktemp("t"), constants())


@pytest.fixture(scope="module")
def qwen():
    return HuggingFaceTokenizer(qwen_like())


ANY_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
HOSTILE = st.lists(
    st.one_of(st.sampled_from([*SPECIAL, "<|im_<|im_start|>", "<", "▁", "<0x0A>", "\x00", "\r\n", "  "]), ANY_TEXT),
    max_size=6,
)


@given(HOSTILE.map("".join))
def test_any_text_survives_the_small_tokenizer(small, text):
    assert small.decode(small.encode(text)) == text
    assert small.decode(small.encode(text, specials=True)) == text


@given(HOSTILE.map("".join))
def test_no_text_becomes_a_special_token(small, qwen, text):
    for tokenizer in (small, qwen):
        assert not set(tokenizer.encode(text)) & set(tokenizer.specials.values())


@given(HOSTILE.map("".join))
def test_every_id_is_below_the_size_and_encoding_is_repeatable(small, text):
    ids = small.encode(text)
    assert ids == small.encode(text)
    assert all(0 <= i < small.size for i in ids)
    assert 1 not in ids  # the unknown piece


def test_special_strings_are_one_id_on_request(small, qwen):
    for tokenizer in (small, qwen):
        for text, i in tokenizer.specials.items():
            assert tokenizer.encode(text, specials=True) == [i]
            assert tokenizer.decode([i]) == text
        assert tokenizer.ids.eos == tokenizer.ids.im_end == tokenizer.specials["<|im_end|>"]
        assert len({*vars(tokenizer.ids).values()}) == 7
    assert set(small.specials) == set(SPECIAL)


def test_a_constant_text_is_one_token_and_a_word_is_a_token_of_its_own(small):
    assert all(len(small.encode(text)) == 1 for text in constants())
    pieces = [small.decode([i]) for i in small.encode("It shows a red lamp.")]
    assert pieces == ["It", " shows", " a", " red", " lamp", "."]


def test_training_is_deterministic_and_a_small_corpus_gives_a_small_vocabulary(tmp_path, small):
    again = train_sentencepiece(corpus(examples()), 1024, tmp_path, constants())
    small.save(tmp_path / "other")
    assert (tmp_path / "tokenizer.model").read_bytes() == (tmp_path / "other" / "tokenizer.model").read_bytes()
    assert again.size < 1024


def test_more_characters_than_pieces_go_through_bytes(tmp_path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 900)))
    tokenizer = train_sentencepiece([text, "甲乙" * 50], 300, tmp_path)
    assert tokenizer.size <= 300
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_that_cannot_be_trained_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="use at least"):
        train_sentencepiece(["text"], 200, tmp_path)
    with pytest.raises(UserError, match="no text"):
        train_sentencepiece(["", " "], 1024, tmp_path)


@given(ANY_TEXT)
def test_qwen_ids_are_the_librarys_own(qwen, text):
    library = tokenizers.Tokenizer.from_str(qwen_like())
    for t in (text, f"<|im_start|>user\n{text}<think>"):
        assert qwen.encode(t, specials=True) == library.encode(t, add_special_tokens=False).ids


def test_a_saved_tokenizer_is_loaded_from_its_folder_or_its_file(tmp_path, small, qwen):
    for kind, tokenizer, name in (("sentencepiece", small, "tokenizer.model"), ("huggingface", qwen, "tokenizer.json")):
        tokenizer.save(tmp_path)
        for path in (tmp_path, tmp_path / name):
            loaded = load_tokenizer(kind, path)
            assert loaded.encode("a <think>", specials=True) == tokenizer.encode("a <think>", specials=True)
            assert (loaded.size, loaded.ids) == (tokenizer.size, tokenizer.ids)


def test_a_wrong_tokenizer_file_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="use one of sentencepiece"):
        load_tokenizer("bpe", tmp_path)
    for kind, name in (("sentencepiece", "tokenizer.model"), ("huggingface", "tokenizer.json")):
        with pytest.raises(UserError, match="no readable tokenizer"):
            load_tokenizer(kind, tmp_path)
        (tmp_path / name).write_text("not it")
        with pytest.raises(UserError, match=f"not a .*{name}"):
            load_tokenizer(kind, tmp_path)
    other = json.loads(qwen_like()) | {"added_tokens": []}
    with pytest.raises(UserError, match=r"no .*video_pad"):
        HuggingFaceTokenizer(json.dumps(other))
