"""What other programs would make of an adapter: vLLM, llama.cpp.

Read out of their loaders (vLLM's `lora/peft_helper.py`, llama.cpp's `convert_lora_to_gguf.py`);
both change, so this warns and decides nothing. Knows adapters and their configuration.
"""

from __future__ import annotations

from collections.abc import Mapping

from detour.adapter.adapter import Adapter
from detour.adapter.peft_config import PeftConfig

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be


def refusals(adapter: Adapter, config: PeftConfig | None) -> dict[str, list[str]]:
    """Program to reasons why it refuses the adapter, or applies something else; empty if none.

    `config` is what the adapter was read with; None for one that has no PEFT configuration.
    """
    return {"vLLM": _vllm(adapter, config), "llama.cpp": _llama_cpp(adapter, config)}


def _vllm(adapter: Adapter, config: PeftConfig | None) -> list[str]:
    whole = adapter.unbound
    ranks = sorted({update.rank for update in adapter.updates.values()})
    found = {
        "it does not apply DoRA": bool(whole.magnitudes) or _has(adapter, "row_scale"),
        "it does not apply modules_to_save": bool(whole.weights),
        "it does not apply biases": bool(whole.biases) or _has(adapter, "bias_delta"),
        "it does not apply token rows": bool(whole.tokens),
        "it does not apply adapted embeddings": any(u.lookup for u in adapter.updates.values()),
        f"its highest rank is {VLLM_RANKS[-1]}": adapter.rank > VLLM_RANKS[-1],
        "it takes one rank and one scale for all layers: they would be wrong without a word": (
            len(ranks) > 1 or len({u.scale for u in adapter.updates.values()}) > 1
        ),
        "it wants a PEFT folder: detour convert": config is None and not _has(adapter, "row_scale"),
    }
    return _true(found)


def _llama_cpp(adapter: Adapter, config: PeftConfig | None) -> list[str]:
    whole = adapter.unbound
    scales = {(u.scale * u.rank) for u in adapter.updates.values()}
    found = {
        "its converter knows lora_A and lora_B only": bool(whole)
        or _has(adapter, "row_scale")
        or _has(adapter, "bias_delta"),
        "its converter takes one alpha for all layers: they would be wrong without a word": len(
            {round(scale, 9) for scale in scales}
        )
        > 1,
        "its converter does not read use_rslora: √rank too weak without a word": config is not None
        and config.use_rslora,
        "it wants a PEFT folder: detour convert": config is None and not _has(adapter, "row_scale"),
    }
    return _true(found)


def _has(adapter: Adapter, part: str) -> bool:
    return any(getattr(update, part) is not None for update in adapter.updates.values())


def _true(found: Mapping[str, bool]) -> list[str]:
    return [reason for reason, holds in found.items() if holds]
