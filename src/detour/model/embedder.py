"""Text to vectors by a frozen encoder: one vector a token, or one a text.

The default is the all-MiniLM-L6-v2 that a Python package brings along, run through transformers;
its weights' sha256 is checked. Any other encoder of the Hub or a folder can be named. Knows texts
and vectors; knows nothing of causal models, adapters or what the vectors are for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.loading import quietly
from detour.model.packaged import MINILM, MINILM_SHA256, packaged


@dataclass(frozen=True, eq=False)
class Embedded:
    """One text, token by token.

    Attributes:
        states: what the encoder makes of each token in its sentence.
        words: what goes into its first layer: the token alone and its position.
        places: where each token stands in the text (characters, end excluded); tokens that stand
            for nothing in it (begin, end) have the place (0, 0).
    """

    states: Float[Tensor, "tokens width"]
    words: Float[Tensor, "tokens width"]
    places: tuple[tuple[int, int], ...]

    @property
    def vector(self) -> Float[Tensor, " width"]:
        """The mean of the tokens' states, of length 1 (Reimers & Gurevych 2019, mean pooling)."""
        return nn.functional.normalize(self.states.mean(0), dim=0)

    @property
    def bag(self) -> Float[Tensor, " width"]:
        """The mean of the tokens themselves, whatever stands around them, of length 1."""
        inside = [place for place, (start, end) in enumerate(self.places) if start < end]
        words = self.words[inside] if inside else self.words
        return nn.functional.normalize(words.mean(0), dim=0)


class Embedder:
    """A frozen text encoder.

    Attributes:
        name: as it was asked for.
        sha256: of its weights' file; what a network trained on its vectors must find again.
        width: length of a vector.
        longest: tokens of a text beyond which it is cut, as the encoder itself does.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, name: str, digest: str
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.sha256 = digest
        config: Any = model.config
        self.width: int = config.hidden_size
        self.longest = min(256, int(getattr(config, "max_position_embeddings", 256)))

    @staticmethod
    def load(name: str = MINILM) -> Embedder:
        """A folder, a Hub id, or the packaged MiniLM by its Hub id.

        Raises:
            MissingExtra: the package that brings MiniLM is not installed.
            BaseError: not there, damaged, or not an encoder whose vectors are means of its tokens.
        """
        folder = packaged() if name == MINILM else name
        try:
            with quietly():
                model: nn.Module = AutoModel.from_pretrained(
                    folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
                )
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError) as cause:
            raise BaseError(
                text("the encoder {name} cannot be loaded", name=name),
                expected=text("a folder or a Hub id of a text encoder"),
                found=str(cause).split("\n", maxsplit=1)[0],
            ) from cause
        digest = MINILM_SHA256 if name == MINILM else _digest(model)
        _check_pooling(folder, name)
        return Embedder(model, tokenizer, name, digest)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch_size: int = 64) -> list[Embedded]:
        """Every text's token states, in the order given; those of like length run together."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[int, Embedded] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            given: Any = self.tokenizer(
                [texts[place] for place in chosen],
                padding=True,
                truncation=True,
                max_length=self.longest,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            places = given.pop("offset_mapping").tolist()
            layers = self.model(**given, output_hidden_states=True).hidden_states
            words, states = layers[0], layers[-1]  # each (texts, tokens, width)
            for row, place in enumerate(chosen):
                there = given["attention_mask"][row].bool()  # whichever side is padded
                found[place] = Embedded(
                    states[row, there],
                    words[row, there],
                    tuple((int(a), int(b)) for (a, b), own in zip(places[row], there) if own),  # noqa: B905
                )
        return [found[place] for place in range(len(texts))]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """How long every text is, in tokens; what is beyond `longest` is not read."""
        if not texts:
            return []
        told: Any = self.tokenizer(list(texts), return_attention_mask=False)
        return [len(ids) for ids in told["input_ids"]]

    def vectors(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """One vector a text, of length 1, so that a product of two is their cosine."""
        return torch.stack([embedded.vector for embedded in self.embed(texts)])


def _digest(model: nn.Module) -> str:
    total = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("pooler."):  # unused; random where the file has none
            continue
        total.update(name.encode())
        total.update(tensor.float().cpu().numpy().tobytes())
    return total.hexdigest()


def means_tokens(folder: Path) -> bool:
    """Whether a folder says, as sentence-transformers' do, that vectors are means of tokens."""
    path = folder / "1_Pooling/config.json"
    if not path.is_file():
        return False
    told: Any = json.loads(path.read_text("utf-8"))
    return bool(isinstance(told, dict) and told.get("pooling_mode_mean_tokens", False))


def _check_pooling(folder: str, name: str) -> None:
    """An encoder that says how its vectors are pooled must say: by the mean."""
    try:
        path = cached_file(folder, "1_Pooling/config.json")
    except OSError:
        return  # it does not say
    told: dict[str, Any] = json.loads(Path(str(path)).read_text("utf-8"))
    if not told.get("pooling_mode_mean_tokens", False):
        raise BaseError(
            text("the encoder {name} does not pool by the mean", name=name),
            expected="pooling_mode_mean_tokens",
            found=", ".join(key for key, value in told.items() if value is True),
        )
