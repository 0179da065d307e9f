"""The word lists of the lexical judge, Chinese and English: data for `judge.text` and `judge.units`."""


def _words(*lines: str) -> tuple[str, ...]:
    """The words of some lines."""
    return tuple(word for line in lines for word in line.split())


# Negators that cover the next `WIDE` tokens of their clause …
WIDE = 5
WIDE_NEGATORS = (
    *_words("not no never without neither nor non except unlike cannot hardly"),
    *_words("isn't wasn't aren't weren't doesn't don't didn't can't won't hasn't haven't"),
    *("rather than", "instead of", "other than", "anything but"),
    *_words("不是 不像 不属 不会 不应 不含 不包 并不 并非 绝非 绝不 而非 没有 从未 从不 除了 排除 不为 不存"),
)
# … or the next `NARROW` ones.
NARROW = 3
NARROW_NEGATORS = tuple("不非无没未")
# What begins like a negator and is none.
NOT_NEGATORS = (
    *("not only", "not just", "not merely", "not to mention", "no doubt", "no wonder"),
    *_words("不锈 不仅 不但 不只 不止 不断 不错 不同 不少 不限 不论 不管 不得 不过 不愧 不禁 不菲 不凡 不规 不粘"),
    *_words("不妨 不一 不如 非常 非凡 非遗 无线 无论 无疑 无比 无数 无限 无缝 无痕 未来 没想 没错"),
)
# Words after which a new statement begins within a clause.
RESETS = frozenset(_words("but is are was were it's 而 但 却 是 即 改"))
# What takes back the words before it.
RETRACTIONS = (
    *("is not", "was not", "is wrong", "is false", "is incorrect", "would be wrong", "isn't", "wasn't"),
    *_words("不对 不正确 是错 是假 有误"),
)
# Spellings that are read as one; after stemming.
SPELLINGS = {"color": "colour", "gray": "grey", "jewelry": "jewellery", "pajama": "pyjama"}
# Letters of other scripts that look like Latin ones.
LOOKALIKES = str.maketrans("аеорсухіјѕԁһӏвкмнтαβεικνορτυχ’‘", "aeopcyxijsdhlbkmhtabeiknoptux''")

# Characters, words and pairs of characters that carry no content of their own; Chinese runs are split at them.
FUNCTION_CHARACTERS = frozenset(
    "的了是在和与及或也都就而且并等其该这那此为以于对从被把将让使呢吗吧啊呀着过得地之所个一很更最能会可要还又再则即如因由向到中里上下"
)
FUNCTION_WORDS = frozenset(
    _words(
        "a an the of in on at to for with by from and or as is are was were be been being it its this that these those",
        "there which who whom what when where while than then so such into onto over under about also very just only",
        "can could will would should may might do does did has have had he she they them his her their we you your i",
        "my our answer think score",
        "video ad scene picture voice speech show shown see seen say said hear heard mention word one every",
    )
)
EMPTY_PAIRS = frozenset(_words("视频 广告 画面 场景 镜头 口播 语音 字幕 提到 说到 听到 看到 可见 展示"))
NUMERALS = {
    "一": "1",
    "二": "2",
    "两": "2",
    "三": "3",
    "四": "4",
    "五": "5",
    "六": "6",
    "七": "7",
    "八": "8",
    "九": "9",
    "十": "10",
}
