"""A model's architecture without its weights: real modules, real names, no numbers in them.

It is built on torch's `meta` device, where parameters have a shape and take no memory, so that a
model of 70 billion parameters is looked at in a second. Knows configurations and slots; loads no
weights and computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.loading import load_config, quietly
from detour.slots.install import SlotSet, install


@dataclass(frozen=True)
class Blueprint:
    """A causal model that holds no numbers.

    Attributes:
        name: how people call it.
        model: on the meta device.
        slots: on every linear layer; only their names and shapes can be used.
    """

    name: str
    model: PreTrainedModel
    slots: SlotSet

    @staticmethod
    def of(name: str) -> Blueprint:
        """From "starter", a folder with a config.json, or "org/name[@revision]" from the Hub.

        Raises:
            BaseError: it is not there, not readable, or not a causal language model.
        """
        return Blueprint.of_config(load_config(name), name)

    @staticmethod
    def of_config(config: PreTrainedConfig, name: str) -> Blueprint:
        """From a configuration.

        Raises:
            BaseError: no model can be built by it.
        """
        try:
            with torch.device("meta"), quietly():
                model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as cause:
            raise BaseError(
                text("no model can be built by the configuration of {name}", name=name),
                expected=text("the configuration of a model that transformers knows"),
                found=str(cause).strip().split("\n", maxsplit=1)[0][:200],
            ) from cause
        return Blueprint(name, model.eval(), install(model))

    @property
    def parameters(self) -> int:
        """How many it has; those that two layers share count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def width(self) -> int:
        """Of its hidden states."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def positions(self) -> int | None:
        """Tokens of its context; None where it states none."""
        found = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) else None
