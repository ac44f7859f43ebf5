"""What learns and what judges: nothing on both sides, never a biased or an endless choice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from detour.data.records import Labelled
from detour.errors import DataError, MissingExtra
from detour.model.base import Base
from detour.model.examples import Plain, pair
from detour.model.headed import HeadedBase
from detour.training import heads, loop, split
from detour.training.config import make_config
from detour.training.heads import train_head
from detour.training.loop import train_with
from detour.training.material import JUDGED_OF_LEARNED, MOST_JUDGED, material_of
from detour.training.split import TEMPLATE, drawn, held_out

SETTINGS = {"steps": 1, "batch_size": 4, "learning_rate": 5e-3, "rank": 2, "validations": 1}


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


# ---- rows that judge where none is held out ------------------------------------------------------


def sorted_by_answer(count: int) -> list[Any]:
    return [pair(f"q{n}?", "yes" if n < count / 2 else "no no no") for n in range(count)]


def test_a_sorted_file_is_not_judged_by_its_beginning(base: Base) -> None:
    rows = sorted_by_answer(200)
    material = material_of(base, rows, make_config({"validation_share": 0.0}))
    lengths = Counter(int(n) for batch in material.judged for n in batch.mask.sum(-1))
    assert sum(lengths.values()) == JUDGED_OF_LEARNED
    told = "".join(
        base.decode(row.tolist()) for batch in material.judged for row in batch.ids
    )  # fmt: skip
    assert 16 <= told.count("yes") <= 48  # of 64, drawn from two halves: outside it 1 in 20,000
    again = material_of(base, rows, make_config({"validation_share": 0.0}))
    assert [b.ids.tolist() for b in again.judged] == [b.ids.tolist() for b in material.judged]
    other = material_of(base, rows, make_config({"validation_share": 0.0, "seed": 1}))
    assert [b.ids.tolist() for b in other.judged] != [b.ids.tolist() for b in material.judged]


def test_one_long_text_is_judged_by_some_of_its_blocks(base: Base) -> None:
    text = Plain("It was a castle in Ulm, with a small shop. " * 300)
    material = material_of(base, [text], make_config({"block": 16}))
    assert material.count > 3 * JUDGED_OF_LEARNED
    assert sum(len(batch.ids) for batch in material.judged) == JUDGED_OF_LEARNED


def test_of_each_class_its_share_judges(tiny_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 rows of one class stand first: they alone were the judges."""
    rows = [Labelled(f"the ship {n}", "sea", f"row {n}") for n in range(100)]
    rows += [Labelled(f"the hill {n}", "land", f"row {100 + n}") for n in range(300)]
    seen: list[list[Any]] = []
    genuine = heads._encoded
    monkeypatch.setattr(
        heads, "_encoded", lambda base, rows, scale: seen.append(rows) or genuine(base, rows, scale)
    )
    config = make_config({**SETTINGS, "validation_share": 0.0})
    train_head(HeadedBase.load(str(tiny_folder), ["land", "sea"]), rows, config)
    assert Counter(row.label for row in seen[1]) == {"sea": 16, "land": 48}


def test_few_rows_are_all_drawn_in_their_order() -> None:
    assert drawn(list("edcba"), 5, 0) == list("edcba")
    many = drawn(range(1000), 100, 3)
    assert many == sorted(set(many))
    assert len(many) == 100
    kinds = Counter(n % 10 == 0 for n in drawn(range(1000), 100, 0, lambda n: str(n % 10 == 0)))
    assert kinds == {True: 10, False: 90}


# ---- rows held out -------------------------------------------------------------------------------


def test_validation_rows_that_are_learned_too_are_refused(base: Base, tiny_folder) -> None:
    rows = [pair(f"Who was number {n}?", "A baker.") for n in range(8)]
    with pytest.raises(DataError, match="2 rows of validation stand in train too"):
        train_with(base, rows, make_config(SETTINGS), validation=[rows[1], rows[5]])
    texts = [Labelled(f"text {n}", "ab"[n % 2], f"row {n}") for n in range(8)]
    with pytest.raises(DataError, match="1 rows of validation stand in train too"):
        train_head(HeadedBase.load(str(tiny_folder), ["a", "b"]), texts, make_config(SETTINGS),
                   validation=texts[3:4])  # fmt: skip


WORDS = [
    *("castle", "harbour", "kitchen", "library", "mountain", "orchard", "palace", "river"),
    *("station", "theatre"),
]
INSTRUCTION = (
    "You are given a sentence out of a review. Say whether its author was pleased, angry or "
    "neither of the two, in a single word, without quoting the sentence. Here it comes: "
)


@pytest.mark.parametrize("seed", range(4))
def test_paraphrases_that_differ_in_one_sign_stay_on_one_side(seed: int) -> None:
    rows = [f"{n} was the year in which the {word} was built by {word[::-1]} and others{end}"
            for n, word in enumerate(WORDS * 3) for end in (".", "!")]  # fmt: skip
    told: list[str] = []
    kept, held = held_out(rows, str, 0.2, seed, told.append)
    assert 0.1 < len(held) / len(rows) < 0.3
    assert not {row[:-1] for row in kept} & {row[:-1] for row in held}
    assert told == []


def test_rows_of_one_template_are_held_out_all_the_same() -> None:
    """A long instruction before a short input: all alike, and none is a paraphrase."""
    rows = [f"{INSTRUCTION}{told}" for word in WORDS for told in (word, word[::-1])]
    told: list[str] = []
    kept, held = held_out(rows, str, 0.1, 0, told.append)
    assert (len(kept), len(held)) == (18, 2)
    assert len(rows) > TEMPLATE
    assert any("20 prompts are as alike as rows of one template" in line for line in told)


def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtra("no datasketch", hint='pip install "detour-lora[data]"')

    monkeypatch.setattr(split, "Near", missing)
    told: list[str] = []
    kept, held = held_out([f"text {n}" for n in range(20)], str, 0.1, 0, told.append)
    assert (len(kept), len(held)) == (18, 2)
    assert any("are not looked for" in line and "pip install" in line for line in told)


def test_among_very_many_it_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MOST_NEAR", 10)
    told: list[str] = []
    assert len(held_out([f"text {n}" for n in range(20)], str, 0.1, 0, told.append)[1]) == 2
    assert any("among more than 10 prompts" in line for line in told)


# ---- a bounded validation ------------------------------------------------------------------------


def test_many_held_out_rows_are_drawn_from_and_that_is_said(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [pair(f"q{n}?", "yes") for n in range(40)]
    held = [pair(f"Q {n} {n}?", "yes") for n in range(MOST_JUDGED + 200)]
    judged: list[int] = []
    genuine = loop.mean_loss

    def spy(loss_of: Any, batches: Any, *more: Any) -> float:
        judged.append(sum(len(batch.ids) for batch in batches))
        return genuine(loss_of, batches, *more)

    monkeypatch.setattr(loop, "mean_loss", spy)
    told: list[str] = []
    config = make_config({**SETTINGS, "steps": 4})
    result = train_with(base, rows, config, validation=held, teller=told.append)
    assert set(judged) == {MOST_JUDGED}
    assert result.validation_rows == MOST_JUDGED
    assert any(f"{MOST_JUDGED} of {MOST_JUDGED + 200} held-out rows" in line for line in told)
