"""What an ad can be about: the values of every slot, in English and Chinese, with their wordings.

A `Value` has wordings that *state* it (in answers), a description of the *evidence* for it (in clues) and, where it is
told rather than shown, sentences that are *spoken*. Slots that are shown (`VISUAL`) have no spoken sentences, and no
wording of theirs occurs in any sentence, overlay or question: only the pixels tell.
"""

import dataclasses
from collections.abc import Mapping

LANGUAGES = ("en", "zh")


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a slot.

    Attributes:
      key: its name in the program.
      wordings: language → wordings that state it, the canonical one first.
      evidence: language → what one sees or hears that gives it away.
      spoken: language → sentences that imply it; empty for what is only shown.
      category: goods category (products only).
    """

    key: str
    wordings: Mapping[str, tuple[str, ...]]
    evidence: Mapping[str, str] = dataclasses.field(default_factory=dict)
    spoken: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    category: str = ""

    def name(self, language: str) -> str:
        """The canonical wording."""
        return self.wordings[language][0]


def _both(en: str, zh: str) -> dict[str, tuple[str, ...]]:
    return {"en": tuple(en.split("|")), "zh": tuple(zh.split("|"))}


def _shown(key: str, en: str, zh: str, seen_en: str = "", seen_zh: str = "", category: str = "") -> Value:
    return Value(key, _both(en, zh), {"en": seen_en, "zh": seen_zh}, category=category)


def _told(key: str, en: str, zh: str, heard_en: str, heard_zh: str, spoken_en: str, spoken_zh: str) -> Value:
    return Value(key, _both(en, zh), {"en": heard_en, "zh": heard_zh}, _both(spoken_en, spoken_zh))


CATEGORIES = CLOTHES, HOME, CARE, APPLIANCE, TOY = "服饰鞋包", "家居家装", "个人护理", "家用电器", "母婴玩具 & 宠物"

PRODUCTS = (
    _shown("shirt", "shirt|T-shirt", "T恤|上衣", "two short sleeves", "两只短袖", CLOTHES),
    _shown("boot", "boot", "靴子|长靴", "a tall shaft over a sole", "长筒和鞋底", CLOTHES),
    _shown("kettle", "kettle|teapot", "水壶|茶壶", "a spout and a hoop handle", "壶嘴和提梁", APPLIANCE),
    _shown("fan", "fan|ventilator", "风扇|电扇", "four round blades", "四片圆叶", APPLIANCE),
    _shown("chair", "chair", "椅子|座椅", "a tall back and legs", "高靠背和腿", HOME),
    _shown("lamp", "lamp", "台灯|灯具", "a wide shade on a stem", "宽罩和细杆", HOME),
    _shown("bottle", "bottle", "瓶子|瓶装", "a narrow neck and a cap", "细颈和瓶盖", CARE),
    _shown("comb", "comb", "梳子|发梳", "a row of teeth", "一排齿", CARE),
    _shown("bear", "bear|teddy", "玩偶熊|小熊", "two ears and a muzzle", "两只圆耳", TOY),
    _shown("kite", "kite", "风筝|纸鸢", "a diamond with a tail", "菱形带尾", TOY),
)

COLOURS = (
    _shown("red", "red", "红色"),
    _shown("orange", "orange", "橙色"),
    _shown("yellow", "yellow", "黄色"),
    _shown("green", "green", "绿色"),
    _shown("cyan", "cyan|turquoise", "青色|青绿"),
    _shown("blue", "blue", "蓝色"),
    _shown("purple", "purple|violet", "紫色"),
    _shown("pink", "pink|magenta", "粉色|粉红"),
)

MATERIALS = (
    _shown("plastic", "plastic", "塑料|塑胶", "a plain surface", "表面光净"),
    _shown("metal", "metal|steel", "金属|钢制", "a bright gloss band", "一道亮光"),
    _shown("wood", "wooden|wood", "木质|木制", "dark grain lines", "深色纹理"),
    _shown("fabric", "fabric|cloth", "布艺|布料", "a weave of dots", "点状织纹"),
)

SETTINGS = (
    _shown("kitchen", "kitchen", "厨房", "white tiles", "白瓷砖"),
    _shown("beach", "beach", "海滩|沙滩", "sand under a pale sky", "沙地和浅天"),
    _shown("forest", "forest|grove", "森林|树林", "dark trunks", "深色树干"),
    _shown("office", "office", "办公室", "grey blinds", "灰百叶窗"),
    _shown("snow", "snowfield|snow", "雪地|雪山", "a pale slope", "浅色坡面"),
    _shown("night", "night street", "夜街|夜晚街道", "lights in the dark", "暗中灯点"),
    _shown("yard", "brick yard|brick wall", "砖院|砖墙", "staggered bricks", "错缝的砖"),
    _shown("field", "flower field|meadow", "花田|花海", "rows of blossoms", "成行花朵"),
)

PROPS = (
    _shown("lemon", "lemon", "柠檬", "a small oval fruit", "小椭圆果"),
    _shown("cup", "cup|mug", "杯子|马克杯", "a small handle", "小把手"),
    _shown("plant", "plant", "盆栽|绿植", "leaves in a pot", "盆里有叶"),
    _shown("clock", "clock", "时钟|闹钟", "a dial with hands", "表盘指针"),
    _shown("book", "book", "书本|书籍", "a cover with a spine", "封面书脊"),
    _shown("candle", "candle", "蜡烛", "a small flame", "小火苗"),
    _shown("dice", "dice|die", "骰子", "a square with pips", "方块圆点"),
    _shown("umbrella", "umbrella|parasol", "雨伞|阳伞", "a dome on a hook", "圆顶弯钩"),
)

HOOKS = (
    _told(
        "worry", "worry|shared trouble", "痛点|烦恼", "a daily mess", "日常麻烦",
        "Tired of this daily mess?|Fed up with the hassle?", "天天这么乱你不累吗？|还在忍受这些麻烦？",
    ),
    _told(
        "curiosity", "curiosity|suspense", "好奇|悬念", "an untold secret", "没说的秘密",
        "Guess what I found today.|Nobody tells you this secret.", "猜猜我今天发现了什么。|这个秘密没人告诉你。",
    ),
    _told(
        "story", "story|anecdote", "故事|亲身经历", "a past event", "一段往事",
        "Last year I nearly gave up.|My sister called me in tears.", "去年我差点放弃了。|那天妹妹哭着打给我。",
    ),
    _told(
        "occasion", "occasion|holiday", "节日|时令", "a coming date", "临近的日子",
        "Her birthday is next week.|New Year is almost here.", "她下周就过生日了。|眼看就要过年了。",
    ),
)  # fmt: skip

PROOFS = (
    _told(
        "demonstration", "demonstration|live test", "演示|实测", "a trial on camera", "镜头前试用",
        "Watch me try it right now.|Look, I do it on camera.", "看我现在就试一次。|来，镜头前做给你看。",
    ),
    _told(
        "popularity", "popularity|social proof", "口碑|从众", "many buyers", "买家众多",
        "Nine in ten buyers came back.|A million homes own one.", "十个买家九个回头。|一百万家庭都买了。",
    ),
    _told(
        "authority", "authority|expert advice", "权威|专家背书", "a titled person", "有头衔的人",
        "Professor Lin uses it too.|A museum engineer picked it.", "林教授自己也在用。|总工程师也选了它。",
    ),
    _told(
        "comparison", "comparison|contrast", "对比|比较", "an older one beside it", "旧款作陪",
        "The old one failed, this did not.|Put side by side, ours wins.", "旧的坏了，这个没坏。|放在一起看，我们赢了。",
    ),
    _told(
        "data", "data|measurement", "数据|检测", "a report with figures", "有数字的报告",
        "The lab report says 98 points.|Tested 5000 times, zero faults.", "检测报告给了98分。|试了5000次零故障。",
    ),
)  # fmt: skip

CLOSES = (
    _told(
        "discount", "discount|price cut", "降价|折扣", "a lower price", "价更低",
        "Type the code, save 20 yuan.|Today it costs 20 yuan less.", "输入口令立减20元。|今天便宜20元。",
    ),
    _told(
        "scarcity", "scarcity|limited stock", "稀缺|限量", "few pieces left", "所剩不多",
        "Only fifty left in stock.|When it is gone, it is gone.", "库存只剩五十件。|卖完就没有了。",
    ),
    _told(
        "refund", "refund|free returns", "退货保障|包退", "a way back", "可以反悔",
        "Not happy? Send it back free.|Keep it 30 days, then decide.", "不满意免费寄回。|先用30天再决定。",
    ),
    _told(
        "bonus", "bonus|free gift", "赠品|送礼", "an extra item", "多给一件",
        "Order now, get a pouch too.|Buy one and we add a second.", "现在下单再送收纳袋。|买一件我们再加一件。",
    ),
)  # fmt: skip

AUDIENCES = (
    _told(
        "students", "students", "学生", "lectures", "上课",
        "Handy between two lectures.|Take it into the exam hall.", "两节课之间就能用。|带进考场也方便。",
    ),
    _told(
        "parents", "parents", "父母|家长", "a baby", "宝宝",
        "Even when the baby cries.|While the little one naps.", "宝宝哭了也不怕。|小家伙午睡时用。",
    ),
    _told(
        "commuters", "commuters", "通勤族|上班族", "the metro", "地铁",
        "On the crowded metro at eight.|Stuck in rush hour again?", "早八的地铁再挤也行。|又堵在早高峰了？",
    ),
    _told(
        "runners", "runners", "跑者|跑友", "a race", "比赛",
        "Right after the last lap.|The day before the marathon.", "跑完最后一圈就用。|马拉松前一天备好。",
    ),
    _told(
        "seniors", "seniors|older people", "老人|长辈", "stiff knees", "腿脚",
        "When your knees get stiff.|Now that you have retired.", "腿脚不灵便的时候。|退休以后慢慢用。",
    ),
    _told(
        "nurses", "night workers|shift workers", "夜班族|夜班人员", "a late shift", "晚班",
        "Your shift ends at dawn.|Clocking off at four again?", "值班到天亮的你。|又是凌晨四点下班？",
    ),
)  # fmt: skip

CLAIMS = (
    _told(
        "light", "easy carrying|portability", "轻便|便携", "90 grams", "90克",
        "It weighs just 90 grams.|Two fingers can lift it.", "它只有90克。|两根手指就提得动。",
    ),
    _told(
        "quiet", "quiet|silence", "安静|静音", "no sound", "听不到响",
        "Not a sound at midnight.|You hear nothing at all.", "半夜听不到一点响。|完全听不见声。",
    ),
    _told(
        "washable", "easy cleaning", "易清洁|好打理", "one wipe", "一擦",
        "One wipe and the stain is gone.|Rinse it once, done.", "一擦污渍就没了。|冲一次就好了。",
    ),
    _told(
        "durable", "durability|long life", "耐用|持久", "ten years", "十年",
        "Ten years and still working.|It outlives the warranty.", "十年了还能用。|保修期过了也不坏。",
    ),
    _told(
        "fast", "speed|saving time", "省时|快捷", "20 seconds", "20秒",
        "Ready in 20 seconds.|Done before you count to ten.", "20秒就准备好。|数到十就完成。",
    ),
    _told(
        "small", "compactness|saving space", "省空间|小巧", "palm size", "巴掌大",
        "It folds to palm size.|It fits into a drawer.", "折起来巴掌大。|一个抽屉就放下。",
    ),
    _told(
        "gentle", "comfort|gentle care", "舒适|温和", "tender skin", "嫩肤",
        "Soft on tender skin.|No itch after a whole day.", "贴着嫩肤也软。|一整天都不痒。",
    ),
    _told(
        "safe", "safety", "安全|防伤", "round corners", "圆角",
        "Every corner is rounded.|It stops when you let go.", "每个角都磨圆了。|松手它就停。",
    ),
)  # fmt: skip

RISKS = (
    _told(
        "superlative", "superlative|absolute term", "绝对化用语|极限词", "a first rank", "排第一",
        "The best in the whole world.|Number one on this planet.", "全世界最好的。|全球第一名。",
    ),
    _told(
        "medical", "medical promise|medical claim", "医疗承诺|疗效宣传", "a cure", "治病",
        "It cures your back pain.|It heals every headache.", "它能治好腰痛。|头痛一用就治好。",
    ),
    _told(
        "guarantee", "guaranteed result|absolute guarantee", "保证效果|效果承诺", "100 percent", "百分百",
        "It works 100 percent, I swear.|No one has ever been let down.", "百分百有效，我发誓。|没有一个人失望过。",
    ),
    _told(
        "attack", "attack on rivals|disparagement", "贬低同行|诋毁对手", "other brands", "别家",
        "All other brands are junk.|Throw the other makers away.", "别家全是垃圾。|别家的都扔了吧。",
    ),
)  # fmt: skip
COMPLIANT = _told(
    "none", "compliant|within the rules", "合规|守规", "nothing exaggerated", "没有夸大",
    "You find us in the app.|The link is down below.", "在应用里就能找到我们。|链接就在下面。",
)  # fmt: skip

TIMES = (
    _shown("opening", "opening|first part", "开头|开场", "0s", "0秒"),
    _shown("middle", "middle|second part", "中间|中段", "2s", "2秒"),
    _shown("ending", "ending|last part", "结尾|末尾", "4s", "4秒"),
)

BRANDS = (
    *("Lumo", "Veska", "Nordi", "Takuma", "Ombra", "Zelk"),
    *("Faira", "Quill", "Mirsa", "Doven", "Yunta", "Pavo"),
)

SLOTS: Mapping[str, tuple[Value, ...]] = {
    "product": PRODUCTS,
    "colour": COLOURS,
    "material": MATERIALS,
    "setting": SETTINGS,
    "prop": PROPS,
    "hook": HOOKS,
    "proof": PROOFS,
    "close": CLOSES,
    "audience": AUDIENCES,
    "need": CLAIMS,
    "risk": (*RISKS, COMPLIANT),
    "risk_time": TIMES,
}
VISUAL = ("product", "colour", "material", "setting", "prop")


def family(slot: str) -> str:
    """The slot's entry in `SLOTS`: "setting_2" is a "setting"."""
    return slot.rstrip("0123456789").removesuffix("_")


def rivals(slot: str, value: Value, language: str) -> tuple[str, ...]:
    """Wordings of the other values of a slot."""
    return tuple(w for other in SLOTS[family(slot)] if other.key != value.key for w in other.wordings[language])
