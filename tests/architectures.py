"""Tiny random models of many architectures, and what to feed them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

VOCABULARY = 40
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 4}
_EXPERTS = {**_HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_OLD = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Architecture:
    """A way to make one model, and the places that variants of LoRA want to know.

    Attributes:
        name: as people call it.
        build: a new model with random weights.
        targets: linear layers, as PEFT's target_modules.
        kind: what is fed in: "ids", "ids twice" (encoder-decoder) or "ids and image".
        experts: stacked parameters.
        convolution: a convolution's name.
    """

    name: str
    build: Callable[[], nn.Module]
    targets: tuple[str, ...]
    kind: str = "ids"
    experts: tuple[str, ...] = ()
    convolution: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def model(self) -> nn.Module:
        """The same model each time, in eval mode and float32."""
        return copy.deepcopy(_made(self.name))

    def outputs(self, model: nn.Module) -> Tensor:
        """Logits, or the last hidden state where there is no head, of two fixed rows."""
        ids = torch.randint(1, VOCABULARY - 4, (2, 6), generator=torch.Generator().manual_seed(1))
        given: dict[str, Any] = {"input_ids": ids}
        if self.kind == "ids twice":
            given["decoder_input_ids"] = ids.flip(1)
        if self.kind == "ids and image":
            given |= _with_image(ids)
        with torch.no_grad():
            out = model(**given)
        return out.logits if hasattr(out, "logits") else out.last_hidden_state


IMAGE_TOKEN = VOCABULARY - 1


def _with_image(ids: Tensor) -> dict[str, Tensor]:
    """Every row begins with an image of 2 × 2 patches."""
    image = torch.full((len(ids), 4), IMAGE_TOKEN)
    pixels = torch.randn(len(ids), 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return {"input_ids": torch.cat([image, ids], dim=1), "pixel_values": pixels}


@cache
def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build().eval()
    for parameter in model.parameters():  # norms too: nothing is 0 or 1 by accident
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _causal(
    config: type, model: type, sizes: Mapping[str, Any], **more: object
) -> Callable[[], Any]:
    return lambda: model(config(**{**sizes, **more}))


def _llava() -> nn.Module:
    vision = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        image_size=8, patch_size=4, projection_dim=16,
    )  # fmt: skip
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(**_GROUPED),
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-1,
    )
    return hf.LlavaForConditionalGeneration(config)


def _t5() -> nn.Module:
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    config = hf.T5Config(
        vocab_size=VOCABULARY, decoder_start_token_id=0, initializer_factor=1.0, **sizes
    )
    return hf.T5ForConditionalGeneration(config)


_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BERT = ("query", "key", "value", "dense")
_EXPERT_NAMES = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")

_ALL = (
    Architecture("Llama", _causal(hf.LlamaConfig, hf.LlamaForCausalLM, _GROUPED), _LLAMA),
    Architecture("Mistral", _causal(hf.MistralConfig, hf.MistralForCausalLM, _GROUPED), _LLAMA),
    Architecture("Qwen2", _causal(hf.Qwen2Config, hf.Qwen2ForCausalLM, _GROUPED), _LLAMA),
    Architecture(
        "Qwen3",
        _causal(hf.Qwen3Config, hf.Qwen3ForCausalLM, _HEADS, tie_word_embeddings=True),
        _LLAMA,
    ),
    Architecture("Gemma2", _causal(hf.Gemma2Config, hf.Gemma2ForCausalLM, _HEADS), _LLAMA),
    Architecture("Gemma3", _causal(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, _HEADS), _LLAMA),
    Architecture(
        "Phi3",
        _causal(hf.Phi3Config, hf.Phi3ForCausalLM, _GROUPED),
        ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    ),
    Architecture(
        "Falcon",
        _causal(hf.FalconConfig, hf.FalconForCausalLM, _SIZES, bias=True, alibi=False),
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    ),
    Architecture(
        "CodeGen",
        _causal(hf.CodeGenConfig, hf.CodeGenForCausalLM, _OLD, rotary_dim=2, n_ctx=32),
        ("qkv_proj", "out_proj", "fc_in", "fc_out"),
    ),
    Architecture(
        "StarCoder2",
        _causal(hf.Starcoder2Config, hf.Starcoder2ForCausalLM, _GROUPED),
        ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
    ),
    Architecture(
        "GPT-NeoX",
        _causal(hf.GPTNeoXConfig, hf.GPTNeoXForCausalLM, _SIZES),
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    ),
    Architecture(
        "GPT-2",
        _causal(hf.GPT2Config, hf.GPT2LMHeadModel, _OLD),
        ("c_attn", "c_proj", "c_fc"),
        options={"fan_in_fan_out": True},
    ),
    Architecture(
        "OPT",
        _causal(hf.OPTConfig, hf.OPTForCausalLM, _SIZES, ffn_dim=24, word_embed_proj_dim=16),
        ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    ),
    Architecture(
        "BLOOM",
        _causal(hf.BloomConfig, hf.BloomForCausalLM, _SIZES, n_layer=2, n_head=4),
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    ),
    Architecture(
        "Mixtral",
        _causal(hf.MixtralConfig, hf.MixtralForCausalLM, _GROUPED, num_local_experts=4),
        ("q_proj", "v_proj"),
        experts=_EXPERT_NAMES,
    ),
    Architecture(
        "Qwen3-MoE",
        _causal(hf.Qwen3MoeConfig, hf.Qwen3MoeForCausalLM, _EXPERTS),
        ("q_proj", "v_proj"),
        experts=_EXPERT_NAMES,
    ),
    Architecture("BERT", _causal(hf.BertConfig, hf.BertForMaskedLM, _SIZES), _BERT),
    Architecture("RoBERTa", _causal(hf.RobertaConfig, hf.RobertaForMaskedLM, _SIZES), _BERT),
    Architecture(
        "T5",
        _t5,
        ("q", "v", "wi", "wo"),
        kind="ids twice",
    ),
    Architecture(
        "LLaVA (vision and language)",
        _llava,
        ("q_proj", "v_proj", "fc1", "down_proj"),
        kind="ids and image",
        convolution="patch_embedding",
    ),
)
ARCHITECTURES = {one.name: one for one in _ALL}
