"""What a page's title, a video's speech and a live clip's speech and chat say of a drawn product.

Brand and claim are told in all three domains, each in other words and not always: the title states the claim, speech
implies it. What is seen is named in titles now and then; in speech only the kind of product is. Everything else is
noise of the trade: hooks, closes, prices, questions from the chat.
"""

import random
from collections.abc import Sequence

from evads_jax.data.products.catalogue import ProductScript
from evads_jax.data.render import vocabulary as words

# How often a part of a text is there.
TITLE = {"brand": 0.95, "colour": 0.5, "material": 0.3, "claim": 0.9, "filler": 0.7}
VIDEO = {"brand": 0.8, "kind": 0.6, "claim": 0.85, "hook": 0.7, "close": 0.7}
LIVE = {"brand": 0.65, "kind": 0.5, "claim": 0.75, "hook": 0.5, "close": 0.8, "chat": 0.9}
SILENT = 0.06  # share of live clips in which nothing is said or written

_FILLER = {
    "en": ("official", "new season", "free shipping", "hot sale", "gift box", "one piece", "genuine"),
    "zh": ("官方正品", "新款", "包邮", "热卖", "礼盒装", "一件", "直营"),
}
_BRAND = {
    "en": ("This is {}.", "{} again!", "Look for {}.", "Made by {}."),
    "zh": ("这是{}的。", "又是{}！", "认准{}。", "{}家的。"),
}
_KIND = {
    "en": ("A {} like that.", "My new {}.", "See this {}?", "The {} you asked for."),
    "zh": ("这样的{}。", "我的新{}。", "看到这个{}了吗？", "你们要的{}。"),
}
_PRICE = {"en": ("Only {} yuan.", "{} yuan, link below."), "zh": ("只要{}元。", "{}元，链接在下面。")}
_CHAT = {
    "en": ("how much?", "link please", "is it big?", "ship to me", "size?", "wow", "sold out again"),
    "zh": ("多少钱？", "链接呢", "大不大？", "能发货吗", "什么尺码？", "好看", "又没货了"),
}


def title(script: ProductScript, language: str, rng: random.Random) -> str:
    """The title of a page."""
    said = [rng.choice(script.kind.wordings[language])]
    for name, value in (("colour", script.colour), ("material", script.material), ("claim", script.claim)):
        if rng.random() < TITLE[name]:
            said.append(rng.choice(value.wordings[language]))
    said += [rng.choice(_FILLER[language])] * (rng.random() < TITLE["filler"])
    rng.shuffle(said)
    if rng.random() < TITLE["brand"]:
        said.insert(0, script.brand)
    return _join(said, language)


def speech(script: ProductScript, language: str, rng: random.Random) -> str:
    """What is said in a short video."""
    return _join(_sentences(script, language, rng, VIDEO), language)


def live(script: ProductScript, language: str, rng: random.Random) -> str:
    """What is said and written in a live clip; now and then nothing."""
    if rng.random() < SILENT:
        return ""
    said = _sentences(script, language, rng, LIVE)
    if rng.random() < LIVE["chat"]:
        said += [f"@{rng.randrange(1000)} {rng.choice(_CHAT[language])}" for _ in range(rng.randint(1, 2))]
    rng.shuffle(said)
    return _join(said, language)


def _sentences(script: ProductScript, language: str, rng: random.Random, shares: dict[str, float]) -> list[str]:
    told = {
        "brand": rng.choice(_BRAND[language]).format(script.brand),
        "kind": rng.choice(_KIND[language]).format(rng.choice(script.kind.wordings[language])),
        "claim": rng.choice(script.claim.spoken[language]),
        "hook": rng.choice(rng.choice(words.HOOKS).spoken[language]),
        "close": rng.choice(rng.choice(words.CLOSES).spoken[language]),
    }
    said = [sentence for name, sentence in told.items() if rng.random() < shares[name]]
    said.append(rng.choice(_PRICE[language]).format(script.price + rng.choice((-10, 0, 0, 10))))
    rng.shuffle(said)
    return said


def _join(parts: Sequence[str], language: str) -> str:
    return " ".join(parts) if language == "en" else "".join(parts)
