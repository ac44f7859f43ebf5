"""Phrases of descriptions: marks to tags and back, loose marks, and a tagger that finds them."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.hypernetwork.tiny_tasks import WordEmbedder

from detour.hypernetwork.encoder import spans_of, tags_of
from detour.hypernetwork.reading import Library, Reader, phrases_of, train_tagger
from detour.hypernetwork.tasks import Description, Tasks
from detour.model.embedder import Embedded


@st.composite
def marked(draw: st.DrawFn) -> tuple[Embedded, list[tuple[int, int]]]:
    """Words with spaces between, and disjoint runs of them that are phrases."""
    count = draw(st.integers(2, 9))
    places = [(4 * n, 4 * n + 3) for n in range(count)]
    starts = draw(st.lists(st.integers(0, count - 1), unique=True, max_size=3).map(sorted))
    spans: list[tuple[int, int]] = []
    for start, following in zip(starts, [*starts[1:], count], strict=bool(starts)):
        last = draw(st.integers(start, following - 1))
        spans.append((places[start][0], places[last][1]))
    vectors = torch.zeros(count + 2, 4)
    return Embedded(vectors, vectors, ((0, 0), *places, (0, 0))), spans


@given(marked())
def test_tags_and_spans_are_inverse(case: tuple[Embedded, list[tuple[int, int]]]) -> None:
    embedded, spans = case
    assert spans_of(embedded, tags_of(embedded, spans)) == spans


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
        assert torch.allclose(picked.vectors[row, : len(reading.vectors)], reading.vectors)
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
