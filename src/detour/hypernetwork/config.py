"""All settings of a hypernetwork and of its training, each with its unit."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

HeadName = Literal["L", "M", "S", "Z"]
EncoderName = Literal["mean", "tokens", "spans"]


class NetworkConfig(BaseModel):
    """What a hypernetwork is built as. The defaults suit small bases; see `published`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: HeadName = "L"
    """What a head gives at once: L all of a layer's A and B, M one of both, S one row of one; Z
    only the diagonal between learned A and B."""
    encoder: EncoderName = "tokens"
    """What of a description is read: its mean vector, its tokens, or each of its phrases alone."""
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or folder of the text encoder."""
    spelling: int = Field(default=0, ge=0)
    """With phrases: buckets for how a phrase is spelled, beside what the text encoder makes of it.
    Helps most where the encoder does not know the language; 0 for none."""
    targets: tuple[str, ...] | str = ("q_proj", "v_proj")
    """Layers that get updates, as for training."""
    rank: int = Field(4, ge=1)
    """Rank of an update; with phrases, of each phrase's."""
    alpha: float = Field(8.0, gt=0)
    """Scale is alpha / rank, or alpha / √rank with `rslora`."""
    rslora: bool = False
    task_width: int = Field(96, ge=1)
    """Width of an encoded description."""
    place_width: int = Field(32, ge=1)
    """Width of the embedding of a depth, and of that of a module."""
    hidden: int = Field(256, ge=1)
    """Width of the trunk's hidden layers and of what the heads read."""
    queries: int = Field(4, ge=1)
    """Learned queries over a description's tokens."""
    dropout: float = Field(0.05, ge=0, lt=1)

    @property
    def scale(self) -> float:
        """By how much the product of the factors is multiplied."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def published(head: HeadName = "L") -> NetworkConfig:
    """The sizes of Text-to-LoRA (Charakorn et al. 2025, arXiv 2506.06105)."""
    return NetworkConfig(
        head=head, encoder="mean", rank=8, alpha=16.0, rslora=True,
        task_width=64, place_width=32, hidden=512, queries=4, dropout=0.05,
    )  # fmt: skip


class SuperviseConfig(BaseModel):
    """Supervised training: the loss of the frozen base on the tasks' rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(1200, ge=1)
    batch_size: int = Field(48, ge=1)
    """Rows a step, each with a description of its own; as many tasks as possible."""
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises; afterwards it falls as a cosine to 2 %."""
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(0.1, gt=0)
    """Greatest gradient norm of each group of parameters: encoder, trunk, every head."""
    noise: float = Field(0.3, ge=0)
    """Length of the noise on a description's vectors, as a share of theirs."""
    naming_steps: int = Field(800, ge=0)
    """Steps in which the encoder learns to name primitives before anything is generated."""
    identify: float = Field(0.5, ge=0)
    """Weight of the loss of naming the task's primitives from the description."""
    penalty: float = Field(0.0, ge=0)
    """Weight of the mean square of the generated factors."""
    validations: int = Field(8, ge=1)
    """How often the validation loss is taken; the best weights are kept."""
    seed: int = 0
