"""The error rate of reading, with readers of known skill."""

import numpy as np

from evads_jax.density.extract.ocr import Reading
from evads_jax.density.measure_ocr import accuracy_table, drawn, error_rate, overlay_texts, through_h264


class Reader:
    """Reads the given texts at their strips, whatever the frame shows."""

    def __init__(self, texts):
        self.texts = texts

    def __call__(self, frame):
        height = 1 / len(self.texts)
        return [Reading(t, (0.0, i * height, 0.5, (i + 1) * height), 1.0) for i, t in enumerate(self.texts)]


def test_a_perfect_reader_makes_no_errors_and_a_blind_one_nothing_but():
    texts = overlay_texts(4)
    assert error_rate(texts, Reader(texts), 20, 1.0) == 0
    assert error_rate(texts, Reader(["" for _ in texts]), 20, 1.0) == 1
    wrong = [text[:-1] + "?" for text in texts]
    assert error_rate(texts, Reader(wrong), 20, 1.0) == len(texts) / sum(len(t.replace(" ", "")) for t in texts)


def test_contrast_and_size_are_what_they_say():
    frame = drawn(["SALE"], 40, 0.5)
    assert frame.max() - frame.min() == np.ptp(drawn(["SALE"], 20, 0.5)) == 127
    assert (drawn(["SALE"], 40, 1.0) == 0).sum() > 2 * (drawn(["SALE"], 20, 1.0) == 0).sum()
    assert through_h264(frame).shape == frame.shape


def test_the_table_has_a_row_a_size():
    assert accuracy_table(Reader(overlay_texts(10))).count("\n") == 7
