"""A small world to evaluate in: ads with rubric points, a judge of a few lines, and policies that know or guess."""

import hashlib
import io

import ml_collections
import numpy as np
from PIL import Image

from evads_jax.data.records import TASKS, Question, RubricPoint, VideoRecord
from evads_jax.judge.verdict import Missing, Verdict

COLOURS = ("red", "blue", "green")
PRODUCTS = ("kettle", "lamp", "scarf")
QUESTIONS = {
    "BP": "What is shown in the ad?",
    "CM": 'What is shown while the voice says "{claim}"?',
    "ML": "How does the ad persuade?",
    "CI": "Who is the ad for?",
    "RC": "Does the ad break a rule?",
}


def jpeg(colour, size=16):
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), colour, np.uint8)).save(file, "jpeg")
    return file.getvalue()


def make_record(number, labelled=True):
    colour, product = COLOURS[number % 3], PRODUCTS[number // 3 % 3]
    rubric = (
        RubricPoint("product", (product,), tuple(p for p in PRODUCTS if p != product)),
        RubricPoint("colour", (colour,), tuple(c for c in COLOURS if c != colour), core=False),
    )
    questions = tuple(
        Question(
            id=f"v{number}-{task}",
            question=text.format(claim=f"claim {number}"),
            answer=f"A {colour} {product}.",
            clues="It is seen.",
            task=task if labelled else None,
            rubric=rubric,
        )
        for task, text in QUESTIONS.items()
    )
    return VideoRecord(
        video=f"v{number}",
        frames=(jpeg(40 * (number % 6)), jpeg(200)),
        times=(0.0, 1.0),
        duration=2.0,
        questions=questions,
        category="home" if number % 2 else None,
        facts={"product": product, "colour": colour},
    )


class WordJudge:
    """A point for the product and half of one for the colour; counts what it is asked."""

    name = "words"

    def __init__(self, missing=()):
        self.asked = 0
        self.missing = frozenset(missing)

    def judge(self, requests):
        self.asked += len(requests)
        return [self._verdict(r) for r in requests]

    def _verdict(self, request):
        if (request.video, request.task) in self.missing:
            return Missing("no reply")
        product, colour = (point.accepted[0] in request.candidate for point in request.rubric)
        return Verdict((0.0, 0.25, 0.75, 1.0)[2 * product + colour], "counted")


class Knowing:
    """Answers rightly in a stated share of the questions, chosen by their ids; otherwise a red kettle."""

    batch = 7

    def __init__(self, share, weights="w", **protocol):
        self.share, self.weights = share, weights
        self.protocol = {"name": "greedy", "format": "eval_released", "blank_frames": False, **protocol}
        self.asked, self.dropped_lines = [], {"v0-BP": 2}

    def generate(self, items):
        self.asked += [record.questions[i].id for record, i in items]
        return [self._answer(record.questions[i]) for record, i in items]

    def _answer(self, question):
        draw = int(hashlib.sha256(question.id.encode()).hexdigest(), 16) % 1000 / 1000
        return f"<think>I see.</think>\n<answer>{question.answer if draw < self.share else 'A red kettle.'}</answer>"


def make_config(seed=0, reward="mg"):
    return ml_collections.ConfigDict(
        {
            "run": {"language": "en", "seed": seed},
            "rl": {"reward": reward},
            "judge": {"kind": "words"},
            "eval": {"bootstrap": 200},
        }
    )


assert tuple(QUESTIONS) == TASKS
