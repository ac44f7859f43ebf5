"""FLOPs are counted, so they can be compared with what the shapes say."""

import math

import pytest
from torch import nn

from detour.evaluate.costs import Costs, costs
from detour.evaluate.hypernet import Item, base_arm, generated_arm, prompt_arm
from detour.hypernetwork.saved import load_generator, packaged
from detour.hypernetwork.tasks import Description, Task
from detour.model.examples import pair


@pytest.fixture(scope="module")
def items():
    told = Description(text="Answer like a pirate.")
    rows = (pair("Who was Marie Curie?", "a chemist, arr!"), pair("the otter", "it swims, arr!"))
    return [Item(Task("pirate", (told,), rows, rows), row, told, "s") for row in rows]


def test_they_are_those_of_the_shapes(starter, items):
    generator = load_generator(packaged())
    arms = {"base": base_arm, "prompt": prompt_arm(starter), "generated": generated_arm(generator)}
    found = costs(starter, generator, items, arms, steps=100, rows=2)

    linear = [m for m in starter.model.modules() if isinstance(m, nn.Linear)]
    head = starter.model.get_output_embeddings()
    body = sum(m.weight.numel() for m in linear if m is not head)

    def answer(item, messages):
        told = item.row.messages[-1]["content"]
        tail = len(starter.tokenizer.encode(told, add_special_tokens=False))
        tokens = len(starter.chat(messages)) + tail
        return 2 * tokens * body + 2 * (tail + 1) * head.weight.numel()

    expected = sum(answer(item, list(item.row.messages[:-1])) for item in items) / 2
    assert expected <= found.answers["base"] <= 1.1 * expected  # attention is the rest
    with_prompt = [
        answer(
            item, [{"role": "system", "content": item.description.text}, *item.row.messages[:-1]]
        )
        for item in items
    ]
    assert sum(with_prompt) / 2 <= found.answers["prompt"] <= 1.1 * sum(with_prompt) / 2
    assert found.answers["base"] < found.answers["generated"] < 1.1 * found.answers["base"]
    assert found.own_adapter == pytest.approx(100 * 2 * 2 * found.answers["generated"])
    assert found.adapter > reading(generator)


def reading(generator):
    """FLOPs of the text encoder's linear layers on a sentence of five tokens at least."""
    model = generator.reader.embedder.model
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return 2 * 5 * weights


def test_break_even():
    found = Costs(1000.0, {"base": 10.0, "prompt": 60.0, "generated": 20.0}, 50_000.0)
    assert found.break_even("prompt") == 25
    assert math.isinf(found.break_even("base"))
    told = found.to_json()
    assert told["break_even_answers"] == {"base": None, "prompt": 25}
    assert told["training_over_generating"] == 50
