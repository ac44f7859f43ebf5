"""The ten benchmarks that Text-to-LoRA was measured on, in words of our own, and its figures.

Data only: knows nothing of models, hypernetworks or the harness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of the lm-eval harness, and what a person would say that it asks for.

    Attributes:
        name: the harness's name of it.
        folder: where its definition lies, under the harness's tasks (or an absolute path).
        metric: what is reported of each item.
        kind: benchmarks of one kind are never each other's wrong description.
        descriptions: what adapters are generated from; the figures are the mean over them.
        filter: which of the harness's ways to read an answer.
        runs_code: it executes what the model writes.
    """

    name: str
    folder: str
    metric: str
    kind: str
    descriptions: tuple[str, ...]
    filter: str = "none"
    runs_code: bool = False


TEN = (
    Benchmark("arc_challenge", "arc", "acc_norm", "science", (
        "Answer hard school science questions: weigh the options and give the one that is true.",
        "Here are exam questions on physics, biology, chemistry and the earth that take a step of "
        "reasoning. Say which answer is right.",
        "Solve difficult science problems for pupils by choosing the correct statement of several.",
    )),
    Benchmark("arc_easy", "arc", "acc", "science", (
        "Answer simple science questions from primary school with the right option.",
        "Use basic knowledge of nature to choose the correct answer to a short question.",
        "A pupil asks an easy question about plants, animals, weather or matter. Give the fact "
        "that answers it.",
    )),
    Benchmark("boolq", "super_glue/boolq", "acc", "reading", (
        "Read the passage and answer the question about it with yes or no.",
        "Decide from a paragraph of an encyclopedia whether what is asked is so. Reply yes or no.",
        "You get a text and a question that can be affirmed or denied. Say which the text bears "
        "out.",
    )),
    Benchmark("gsm8k", "gsm8k", "exact_match", "arithmetic", (
        "Work out word problems in arithmetic one step at a time and end with the number.",
        "Solve sums told as small stories: write down each calculation, then the result.",
        "Find how much, how many or how long from a short tale about quantities, showing the "
        "reckoning before the answer.",
    ), filter="strict-match"),
    Benchmark("hellaswag", "hellaswag", "acc_norm", "everyday", (
        "Continue the description of an everyday scene with what would really happen next.",
        "Choose the ending that makes sense for a short account of people doing something.",
        "Given the beginning of a how-to or a video caption, pick the most plausible way on.",
    )),
    Benchmark("openbookqa", "openbookqa", "acc_norm", "science", (
        "Combine a basic fact of science with common sense to finish the statement correctly.",
        "Answer questions on elementary science that need one more piece of everyday knowledge.",
        "Complete the sentence with the option that follows from how the world works.",
    )),
    Benchmark("piqa", "piqa", "acc", "everyday", (
        "Say how to reach a practical goal with ordinary things: choose the way that works.",
        "Two instructions are offered for a household task. Take the physically sensible one.",
        "Use common sense about objects and materials to tell how something is done.",
    )),
    Benchmark("winogrande", "winogrande", "acc", "everyday", (
        "Fill the blank with the one of two persons or things that the sentence must mean.",
        "Work out to which of two names a sentence refers, from what would make sense.",
        "Resolve who or what is meant where grammar alone leaves it open.",
    )),
    Benchmark("humaneval", "humaneval", "pass@1", "code", (
        "Complete the Python function so that it does what its docstring says.",
        "Write the body of a Python function from its signature, explanation and examples.",
        "Continue the program: implement the described function correctly in Python.",
    ), filter="create_test", runs_code=True),
    Benchmark("mbpp", "mbpp", "pass_at_1", "code", (
        "Write a short Python function for a task given in one sentence, so that the tests pass.",
        "Turn a plain request into working Python code that satisfies the assertions shown.",
        "Program small beginner exercises in Python; the result must meet the given checks.",
    ), runs_code=True),
)  # fmt: skip

PUBLISHED: dict[str, Any] = {
    "source": "Text-to-LoRA, arXiv 2506.06105",
    "base": "Mistral-7B",
    "unit": "percent",
    "average_of_10": {
        "base": 55.8,
        "multi-task LoRA": 66.3,
        "Hyperdecoders": 67.3,
        "T2L reconstruction": 61.8,
        "T2L-SFT L": 67.7,
        "T2L-SFT M": 67.5,
        "T2L-SFT S": [65.2, 65.9],
    },
    "average_of_8": {
        "base": 60.0,
        "multi-task LoRA": 71.9,
        "Arrow routing": 70.7,
        "Hyperdecoders": 73.6,
        "T2L-SFT L": [73.9, 74.0],
        "T2L-SFT M": 73.5,
        "task-specific LoRA": 75.8,
    },
}
"""As published, with prompts and scoring of its own; a pair is the range over its reports."""


def wrong_descriptions(benchmark: Benchmark) -> tuple[str, ...]:
    """As many as the benchmark has, each of another benchmark, none of them of its kind."""
    others = [other for other in TEN if other.kind != benchmark.kind]
    count = len(benchmark.descriptions)
    chosen = (others[place * len(others) // count] for place in range(count))
    return tuple(
        other.descriptions[place % len(other.descriptions)] for place, other in enumerate(chosen)
    )
