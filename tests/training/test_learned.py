"""Rows that an adapter was trained on are known from its card."""

from pathlib import Path

import pytest

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.data.records import Labelled, Record, Valued
from detour.model.base import Base
from detour.model.examples import Example, Plain, pair
from detour.model.headed import HeadedBase
from detour.training.config import make_config
from detour.training.heads import train_head
from detour.training.learned import learned_by
from detour.training.loop import train_with
from detour.training.split import split

FAST = {"rank": 2, "steps": 20, "learning_rate": 5e-3}
ROWS: list[Example] = [pair(f"Who was {n}?", f"Nobody {n}.") for n in range(12)]


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    return Base.load(str(tiny_folder))


def test_of_a_file_that_was_split_what_was_kept_is_known(base: Base) -> None:
    config = make_config({**FAST, "validation_share": 0.25, "seed": 3})
    adapter = train_with(base, ROWS, config).adapter
    kept, held = split(ROWS, 0.25, 3)
    assert held
    assert learned_by(adapter, ROWS) == kept
    assert learned_by(adapter, kept) == kept
    assert learned_by(adapter, held) == []
    assert learned_by(adapter, ROWS[1:]) == []  # other rows, as far as a digest can tell


def test_plain_texts_and_rows_with_a_part_of_their_own(base: Base) -> None:
    told = [Plain(f"Text {n} that stands alone.") for n in range(3)]
    other = Plain("Text that nothing was trained on.")
    adapter = train_with(base, told, make_config(FAST), validation=[other]).adapter
    assert learned_by(adapter, told) == told
    assert learned_by(adapter, [other]) == []


@pytest.mark.parametrize("kind", ["label", "value"])
def test_heads(tiny_folder: Path, kind: str) -> None:
    words = [("hill", "ship")[n % 2] for n in range(20)]
    rows: list[Record] = [
        Labelled(f"the {word} {n}", word) if kind == "label" else Valued(f"the {word} {n}", n % 2)
        for n, word in enumerate(words)
    ]
    labels = sorted(set(words)) if kind == "label" else []
    base = HeadedBase.load(str(tiny_folder), labels)
    adapter = train_head(base, rows, make_config({**FAST, "validation_share": 0.2})).adapter
    assert len(learned_by(adapter, rows)) == 16
    assert learned_by(adapter, rows[:10]) == []


def test_a_card_that_says_nothing(base: Base) -> None:
    assert learned_by(Adapter({}, "bare"), ROWS) == []
    odd = Card(data_sha256="0" * 64, config={"validation_share": "many", "seed": None})
    assert learned_by(Adapter({}, "odd", card=odd), ROWS) == []
