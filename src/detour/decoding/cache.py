"""The key-value cache of a running batch: room ahead, so that a new token is written, not copied.

transformers' own growing layers copy every key and value at every step. These keep spare room, and
rows that have ended are taken out. Sliding-window layers stay transformers' own.

Knows transformers' cache layers. Does not know requests or sampling.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionCacheLayerMixin

from detour.errors import RequestError
from detour.language.catalogue import text

_ROOM = 64  # tokens; at least this much is added when a layer is full


class RoomyLayer(DynamicLayer):
    """A layer's keys and values with room for more tokens behind them."""

    def __init__(self) -> None:
        super().__init__()
        self._used = 0

    def update(
        self,
        key_states: Float[Tensor, "rows heads tokens width"],
        value_states: Float[Tensor, "rows heads tokens value_width"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Append the new tokens; returns all keys and values so far, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._keys = _with_room(key_states, 0, key_states.shape[2])
            self._values = _with_room(value_states, 0, key_states.shape[2])
        end = self._used + key_states.shape[2]
        if end > self._keys.shape[2]:
            self._keys = _with_room(self._keys, self._used, end)
            self._values = _with_room(self._values, self._used, end)
        self._keys[:, :, self._used : end] = key_states
        self._values[:, :, self._used : end] = value_states
        self._used = end
        return self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = self._keys[:, :, : self._used], self._values[:, :, : self._used]
        self.keys, self.values = keys, values
        return keys, values

    def batch_select_indices(self, indices: Int[Tensor, " kept"]) -> None:
        """Only these rows stay."""
        if self.is_initialized:
            self._keys, self._values = self._keys[indices], self._values[indices]
            self._show()


def _with_room(states: Tensor, used: int, wanted: int) -> Tensor:
    room = max(_ROOM, wanted // 4)
    larger = states.new_empty(*states.shape[:2], wanted + room, states.shape[3])
    larger[:, :, :used] = states[:, :, :used]
    return larger


class RoomyCache(DynamicCache):
    """The cache a model's configuration asks for, its plain layers roomy.

    Raises:
        RequestError: a recurrent model, whose state would take in the padding.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in self.layers):
            raise RequestError(
                text(
                    "{kind} models keep a recurrent state, which is not supported",
                    kind=config.model_type,
                ),
                hint=text("a model whose layers all attend"),
            )
        self.layers = [
            RoomyLayer() if type(layer) is DynamicLayer else layer for layer in self.layers
        ]
        self.layer_class_to_replicate = RoomyLayer if not self.layers else None
