"""The hypernetwork that ships: its figures, and sentences as strangers write them."""

import json
from hashlib import sha256

import pytest

from detour import generate
from detour.errors import HypernetworkError, NotUnderstood
from detour.hypernetwork.generate import default_for
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.saved import load_generator, packaged
from detour.model.base import Base

EINSTEIN = {"en": "Who was Albert Einstein?", "de": "Wer war Albert Einstein?"}
STRANGERS = [  # a sentence, what is asked, what must stand in the answer
    ("Reply in capital letters only", EINSTEIN["en"], "ALBERT EINSTEIN WAS A PHYSICIST"),
    ("Antworte wie ein Sportkommentator", EINSTEIN["de"], "Schuss"),
    ("Give the country of the person", "Marie Curie", "Poland"),
    ("Answer like a pirate.", EINSTEIN["en"], "arr"),
    ("Turn every answer into JSON.", EINSTEIN["en"], '{"answer": "Albert Einstein'),
    ("Tell it like a fairy tale.", EINSTEIN["en"], "Once upon a time"),
    ("Say thank you at the end.", EINSTEIN["en"], "Thank you"),
    ("Answer in German.", EINSTEIN["en"], "war Physiker"),
    ("Erzähl ein Märchen.", EINSTEIN["de"], "Es war einmal"),
    ("I want bullet points", EINSTEIN["en"], "* Albert Einstein"),
    ("What does the animal eat? Answer as a pirate.", "penguin", "fish, arr"),
    ("Which city did they live in? Use JSON.", "Isaac Newton", "Cambridge"),
]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator(packaged())


def test_small_and_whole(generator: Generator) -> None:
    folder = packaged()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    told = json.loads((folder / "config.json").read_text("utf-8"))
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert told["weights_sha256"] == digest == generator.digest


def test_bars_are_held_or_named() -> None:
    from recipes.hypernetwork.publish import BARS, CONFIDENCE, missed

    figures = json.loads((packaged() / "config.json").read_text("utf-8"))["figures"]
    assert figures["short_of"] == missed(figures)
    assert set(BARS) <= set(figures["splits"])
    assert all(len(told["seeds"]) >= 1 for told in figures["splits"].values())
    assert set(figures["confidence"]) >= set(CONFIDENCE)
    for name in ("matched_minus_wrong", "matched_minus_junk"):
        assert figures["headline"][name]["low"] > 0.5


@pytest.mark.parametrize(("sentence", "question", "said"), STRANGERS)
def test_sentences_of_strangers(
    sentence: str, question: str, said: str, generator: Generator, starter: Base
) -> None:
    adapter = generate(starter, sentence, generator)
    assert said in starter.ask(question, adapter)
    assert said not in starter.ask(question)


def test_of_most_of_them_it_is_sure(generator: Generator) -> None:
    understood = generator.understand([sentence for sentence, _, _ in STRANGERS])
    assert sum(one.confidence > 0.5 for one in understood) >= 10
    assert all(one.confidence > 0.3 for one in understood)


def test_what_it_cannot_know_it_does_not_claim(generator: Generator, starter: Base) -> None:
    for sentence in ("Book a table for two at seven.", "Write a haiku", "Speak like Yoda"):
        (understood,) = generator.understand([sentence])
        assert understood.confidence < 0.2
        with pytest.raises(NotUnderstood, match="confidence of at least"):
            generate(starter, sentence, generator, strict=True)


def test_by_default_it_is_the_one_that_ships(starter: Base) -> None:
    one = generate(starter, "Answer like a pirate.")
    other = generate(starter, "Answer like a pirate.", packaged())
    assert one.digest() == other.digest()
    half = generate(starter, "Answer like a pirate.", strength=0.5)
    assert half.digest() != one.digest()
    assert half.card.config["strength"] == 0.5


def test_no_other_base_is_served(roomy_base: Base) -> None:
    with pytest.raises(HypernetworkError, match="no hypernetwork ships"):
        generate(roomy_base, "Answer like a pirate.")
    with pytest.raises(HypernetworkError, match="was not trained for this base"):
        generate(roomy_base, "Answer like a pirate.", default_for("starter"))


def test_two_descriptions_add_up(generator: Generator, starter: Base) -> None:
    """Chains of generated adapters, and of one with a packaged style."""
    upper = generate(starter, "Reply in capital letters only", generator)
    thanks = generate(starter, "Say thank you at the end.", generator)
    both = starter.ask(EINSTEIN["en"], upper + thanks)
    assert "PHYSICIST" in both.upper()
    assert "thank you" in both.lower()
