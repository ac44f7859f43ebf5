"""Answers that were learned with their end come to an end; without it they do not."""

import pytest

from detour.errors import BaseError
from detour.measure.stopping import Stopping, stopping
from detour.model.base import Base
from detour.model.examples import Plain, pair
from detour.training.config import make_config
from detour.training.loop import train_with

ROWS = [pair(f"Who was {name}?", "A hairdresser.") for name in ("Ada", "Bohr", "Kant")]
CONFIG = make_config({"steps": 40, "learning_rate": 1e-2, "rank": 4, "alpha": 8.0})


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


def test_what_was_learned_ends(base):
    assert stopping(base, ROWS).ended < 3  # a random model talks on
    adapter = train_with(base, ROWS, CONFIG).adapter
    assert stopping(base, ROWS, adapter) == Stopping(3, 3)


def test_where_no_token_ends_an_answer_it_goes_on(tiny_llama, make_tokenizer):
    """A template that ends turns otherwise than the model ends its answers."""
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    base = Base.from_model(tiny_llama, tokenizer)
    adapter = train_with(base, ROWS, CONFIG).adapter
    told = stopping(base, ROWS, adapter)
    assert (told.ended, told.asked) == (0, 3)
    assert told.unended[0].startswith("A hairdresser.")


def test_only_short_answers_to_different_questions_are_tried(base):
    rows = [*ROWS, *ROWS, *(pair(f"{n}?", "word " * 40) for n in range(9)), Plain("some text")]
    assert stopping(base, rows).asked == 3
    assert stopping(base, rows[-4:]) == Stopping(0, 0)


def test_without_a_tokenizer_nothing_is_asked(tiny_llama):
    with pytest.raises(BaseError, match="no tokenizer"):
        stopping(Base.from_model(tiny_llama), ROWS)
