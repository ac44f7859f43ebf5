"""Phrases of descriptions: marks to tags and back, loose marks, and a tagger that finds them."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.hypernetwork.tiny_tasks import WordEmbedder

from detour.hypernetwork.encoder import BEGIN, INSIDE, OUTSIDE, tags_of
from detour.hypernetwork.reading import Library, Reader, phrases_of
from detour.hypernetwork.tagging import _words, train_tagger
from detour.hypernetwork.tasks import Description, Tasks
from detour.model.embedder import Embedded


@given(
    st.lists(st.sampled_from(["the", "job", "in", "capitals", "x"]), min_size=3, max_size=9),
    st.data(),
)
def test_tags_mark_exactly_the_words_of_the_phrase(said: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(said) - 1))
    last = data.draw(st.integers(first, len(said) - 1))
    text = " ".join(said)
    (embedded,) = WordEmbedder().embed([text])
    start, end = embedded.places[first][0], embedded.places[last][1]
    tags = tags_of(embedded, [(start, end)])
    assert tags == [
        BEGIN if n == first else INSIDE if first < n <= last else OUTSIDE for n in range(len(said))
    ]


def test_loose_phrases_touch_the_marked_ones() -> None:
    told = Description(
        text="Please tell me the job of them, and do it like a pirate at sea, thanks.",
        parts={"work": "the job of them", "loud": "like a pirate at sea"},
    )
    rng = random.Random(0)
    assert phrases_of(told, 0.0, rng) == ["the job of them", "like a pirate at sea"]
    found = [phrases_of(told, 1.0, rng) for _ in range(60)]
    assert len({first for first, _ in found}) > 3
    assert all("job" in first and "pirate" in second for first, second in found)
    assert any(first != "the job of them" for first, _ in found)


@pytest.mark.parametrize("kind", ["mean", "tokens", "spans"])
def test_a_library_gives_what_a_reader_gives(kind: str, words: WordEmbedder) -> None:
    told = [Description(text="Say the job in capitals"), Description(text="Whisper")]
    library = Library.of(words, told, kind)  # type: ignore[arg-type]
    picked = library.picked([1, 0])
    if kind == "spans":
        assert torch.equal(picked.vectors[0, 0], words.vectors(["Whisper"])[0])
        return
    reader = Reader(words, kind, None)  # type: ignore[arg-type]
    for row, reading in enumerate(reader.read(["Whisper", "Say the job in capitals"])):
        kept = picked.vectors[row, : len(reading.vectors)]  # tokens are kept in half precision
        assert torch.allclose(kept, reading.vectors, atol=2e-3)
        assert int(picked.there[row].sum()) == len(reading.vectors)


def test_a_tagger_finds_phrases_in_a_new_sentence(tasks: Tasks, words: WordEmbedder) -> None:
    told = [d for task in tasks.of("train") for d in task.of_set()]
    tagger = train_tagger(words, told, epochs=60, seed=0)
    (reading,) = Reader(words, "spans", tagger).read(["Give the town and in capitals 4."])
    assert [phrase.text for phrase in reading.phrases] == ["the town", "in capitals"]
    assert all(phrase.certainty > 0.8 for phrase in reading.phrases)


def test_a_text_without_phrases_has_no_vectors(tasks: Tasks, words: WordEmbedder) -> None:
    told = [d for task in tasks.of("train") for d in task.of_set()]
    tagger = train_tagger(words, told, epochs=60, seed=0)
    (reading,) = Reader(words, "spans", tagger).read(["Say 4."])
    assert reading.phrases == ()
    assert reading.vectors.shape == (0, words.width)


def test_noise_has_the_length_asked_for(
    words: WordEmbedder, task_folder: Callable[..., Path]
) -> None:
    described = Library.of(words, [Description(text="a b c d e")], "tokens").picked([0] * 50)
    noisy = described.noisy(0.3, torch.Generator().manual_seed(0))
    share = (noisy.vectors - described.vectors).norm(dim=-1) / described.vectors.norm(dim=-1)
    assert 0.27 < float(share.mean()) < 0.33
    assert described.noisy(0.0, torch.Generator()) is described


def test_stray_words_are_dropped_beside_others(tasks: Tasks, words: WordEmbedder) -> None:
    told = [d for task in tasks.of("train") for d in task.of_set()]
    reader = Reader(words, "spans", train_tagger(words, told, epochs=60, seed=0))
    text = "Give the town and in capitals 4."
    (kept,) = reader.read([text], lambda phrase, _: phrase == "the town")
    assert [phrase.text for phrase in kept.phrases] == ["in capitals"]
    assert len(kept.vectors) == 1
    (alone,) = reader.read(["Say the town 4."], lambda phrase, _: True)
    assert [phrase.text for phrase in alone.phrases] == ["the town"]  # never all of them


def test_a_word_is_in_or_out_as_a_whole() -> None:
    embedded = Embedded(torch.zeros(4, 3), torch.zeros(4, 3), ((0, 0), (0, 3), (3, 7), (8, 9)))
    assert _words("playing a", embedded) == [[1, 2], [3]]
