import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.judge.text import read
from evads_jax.judge.units import LEAST_PRECISION, UnitReference, UnitScore, closed_values, units


def grade(question, reference, candidate):
    return UnitReference(reference, question).compare(candidate, read(candidate)).grade


def test_chinese_units_are_pairs_between_function_characters_and_words_are_stems():
    found = [unit for unit, _ in units(read("浅色的草编篮，USB 3.5 chargers of the shop"))]
    assert found == ["浅色", "草编", "编篮", "usb", "3.5", "charger", "shop"]


def test_a_negation_makes_another_unit():
    assert ("红色", True) in units(read("不是红色"))
    assert ("红色", False) in units(read("红色"))
    assert grade("", "红色。", "不是红色") == 0
    assert grade("", "不存在夸大宣传。", "存在夸大宣传") < 0.5


# perfect, generic, half, mismatched, wrong
WRITTEN = {
    "zh, what is seen": (
        "画面中的容器是什么材质和形状？",
        "容器是浅色的草编质地的长方形篮筐，放在木质桌面上。",
        "这是浅色的草编质地长方形篮筐，放在木质桌面上",
        "浅色草编质地的长方形篮筐",
        "草编篮筐，木质桌面",
        "红色的塑料圆形篮筐，放在木质桌面上",
        "白色陶瓷圆碗，装满水果",
    ),
    "zh, marketing": (
        "视频如何说服消费者？",
        "开头以突发降温直击缺衣痛点，结合多风格叠穿与大弹力面料展示，强调百搭显瘦与微胖包容性，建立一衣多穿的高性价比心智。",
        "以突发降温直击缺衣痛点开头，展示多风格叠穿和大弹力面料，强调百搭显瘦、微胖包容性，建立一衣多穿高性价比心智",
        "直击缺衣痛点，结合叠穿与大弹力面料展示，强调百搭显瘦，建立高性价比心智",
        "强调百搭显瘦与微胖包容性，建立高性价比心智",
        "以明星代言和限时折扣开头，宣称面料来自雪山，强调百搭显瘦与微胖包容性",
        "通过厨房实验展示锅具耐用，承诺终身保修",
    ),
    "en": (
        "What is shown when the voice says soft touch?",
        "A red ceramic mug with a white handle, standing on a wooden kitchen table.",
        "A red ceramic mug with a white handle, standing on the wooden table of a kitchen",
        "A red ceramic mug on a kitchen table",
        "A ceramic mug with a handle",
        "A ceramic mug next to a glass vase in a garden",
        "A pair of leather shoes in a shop",
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_get_the_rubrics_values(name):
    question, reference, *answers = WRITTEN[name]
    assert [grade(question, reference, answer) for answer in answers] == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("reference", ["黑色。", "左", "是", "的", "3", "70%。", "🙂", "yes", "是的", "a"])
def test_a_reference_of_any_shortness_is_perfect_itself(reference):
    assert grade("问题？", reference, reference) == 1.0
    assert grade("问题？", reference, "完全不同") == 0.0


def test_two_competing_values_score_nothing():
    for reference, candidate in (
        ("黑色。", "黑色或白色"), ("在画面左侧。", "在左侧或右侧"), ("一共3个按钮", "3个按钮，也可能是5个按钮"),
        ("合规，属于合理修辞。", "违规，不属于合理修辞，也可以说合规"), ("The bag is red.", "The bag is red or blue."),
    ):  # fmt: skip
        assert grade("", reference, candidate) == 0.0


def test_the_opposite_conclusion_about_compliance_scores_nothing():
    assert grade("", "合规。属于夸张修辞，且有画面佐证。", "不合规。属于夸张修辞，且有画面佐证。") == 0.0


def test_another_colour_in_a_long_answer_leaves_a_quarter():
    reference = "画面展示的挂杆上最左侧第一件衣物呈现蓝色，与其他浅色款式并列。"
    assert grade("", reference, reference.replace("蓝", "红")) == 0.25


def test_a_colour_of_the_question_may_be_named():
    assert grade("红色瓶子旁边是什么？", "一个白色陶瓷圆碗", "红色瓶子旁边是一个白色陶瓷圆碗") == 1.0
    assert grade("是红色还是白色？", "白色", "红色还是白色") == 0.0


def test_the_words_of_the_question_earn_nothing():
    assert grade("视频中的草编篮筐装了什么？", "草编篮筐装了面包", "视频中的草编篮筐装了什么？") == 0.0


def test_a_reference_made_of_the_questions_words_is_compared_as_it_is():
    assert grade("金色还是银色？", "金色", "应该算金色") == 0.25
    assert grade("金色还是银色？", "金色", "是金色的") == 1.0


def test_empty_pairs_split_a_run_and_are_no_units():
    assert units(read("视频展示红色")) == [("红色", False)]


def test_numerals_and_digits_are_one_count():
    assert closed_values(read("三个按钮，两层，左右").plain) == {"count 个": {"3"}, "count 层": {"2"}}
    assert closed_values(read("3 个按钮").plain) == {"count 个": {"3"}}


@given(st.floats(0, 1), st.floats(0, LEAST_PRECISION - 1e-6))
def test_fabrication_never_leaves_more_than_a_quarter(recall, precision):
    assert UnitScore(recall, precision).grade <= 0.25


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_grade_rises_with_recall_and_with_precision(recall, low, high):
    low, high = sorted((low, high))
    assert UnitScore(recall, low).grade <= UnitScore(recall, high).grade
    assert UnitScore(low, recall).grade <= UnitScore(high, recall).grade
