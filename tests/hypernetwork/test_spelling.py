"""Spelling as vectors: like words are alike, whatever they mean."""

import pytest
import torch
from tests.hypernetwork.tiny_tasks import WIDTH, WordEmbedder

from detour.hypernetwork.config import NetworkConfig
from detour.hypernetwork.encoder import vector_width
from detour.hypernetwork.reading import phrase_vectors
from detour.hypernetwork.spelling import spelled


def test_words_of_one_stem_are_nearer_than_strangers() -> None:
    vectors = spelled(["wie ein Seeräuber", "nach Seeräuberart", "in Großbuchstaben"], 4096)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    alike, apart = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert alike > 0.25
    assert apart < 0.1
    assert torch.equal(spelled(["WIE EIN SEERÄUBER"], 4096), spelled(["wie ein Seeräuber"], 4096))


def test_nothing_has_no_spelling() -> None:
    assert spelled([""], 64).norm() <= 1.0
    assert spelled([], 64).shape == (0, 64)


@pytest.mark.parametrize("spelling", [0, 128])
def test_what_a_network_reads_is_as_wide_as_it_expects(spelling: int) -> None:
    config = NetworkConfig(encoder="spans", spelling=spelling)
    vectors, meanings = phrase_vectors(WordEmbedder(), ["in capitals", "the city"], spelling)
    assert vectors.shape == (2, vector_width(config, WIDTH))
    assert meanings.shape == (2, WIDTH)
    torch.testing.assert_close(vectors[:, :WIDTH], meanings)
    assert vector_width(config.model_copy(update={"encoder": "tokens"}), WIDTH) == WIDTH
