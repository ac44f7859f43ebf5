"""Ready pipelines of others: an Axolotl or LlamaFactory YAML, as far as its keys mean something.

What a key changes in the result and cannot be done here is told key by key; what only makes another
trainer faster or more talkative is told in one line. Knows their keys and our settings; trains
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from detour.errors import ConfigError
from detour.language.catalogue import joined, text
from detour.training.pipeline_data import NOTHING, Values, axolotl_data, llama_factory_data

AXOLOTL = {
    "lora_r": "rank", "lora_alpha": "alpha", "peft_use_dora": "dora", "peft_use_rslora": "rslora",
    "loraplus_lr_ratio": "up_rate", "num_epochs": "epochs", "max_steps": "steps",
    "learning_rate": "learning_rate", "warmup_ratio": "warmup", "weight_decay": "weight_decay",
    "max_grad_norm": "clip", "early_stopping_patience": "patience", "seed": "seed",
    "val_set_size": "validation_share", "micro_batch_size": "micro_batch_size",
}  # fmt: skip
LLAMA_FACTORY = {
    "lora_rank": "rank", "lora_alpha": "alpha", "use_dora": "dora", "use_rslora": "rslora",
    "loraplus_lr_ratio": "up_rate", "num_train_epochs": "epochs", "max_steps": "steps",
    "learning_rate": "learning_rate", "warmup_ratio": "warmup", "weight_decay": "weight_decay",
    "max_grad_norm": "clip", "early_stopping_steps": "patience", "seed": "seed",
    "val_size": "validation_share", "per_device_train_batch_size": "micro_batch_size",
}  # fmt: skip
# how another trainer goes about it: nothing of this changes what is learned
_QUIET = """
adapter base_model bf16 bfloat16 chat_template_jinja dataloader_num_workers dataset dataset_dir
dataset_prepared_path datasets ddp_timeout debug deepspeed do_eval do_train eval_batch_size
eval_steps eval_strategy evals_per_epoch evaluation_strategy finetuning_type flash_attention
flash_attn fp16 fsdp fsdp_config gradient_accumulation_steps gradient_checkpointing
gradient_checkpointing_kwargs group_by_length hub_model_id liger_kernel load_best_model_at_end
load_in_4bit load_in_8bit local_rank logging_steps lora_fan_in_fan_out lora_target
lora_target_linear lora_target_modules micro_batch_size model_name_or_path model_type output_dir
overwrite_cache overwrite_output_dir packing pad_to_sequence_len peft_init_lora_weights
per_device_eval_batch_size pissa_init plot_loss plugins preprocessing_num_workers quantization_bit
quantization_method report_to resume_from_checkpoint run_name sample_packing save_only_model
save_safetensors save_steps save_strategy save_total_limit saves_per_epoch sdp_attention stage
strict tf32 tokenizer_type trust_remote_code use_fast_tokenizer use_unsloth wandb_entity
wandb_log_model wandb_name wandb_project wandb_watch xformers_attention
"""
QUIET = frozenset(_QUIET.split())
USUAL: Mapping[str, Callable[[Any], bool]] = {
    "optimizer": lambda v: str(v).startswith(("adamw", "paged_adamw")),
    "optim": lambda v: str(v).startswith(("adamw", "paged_adamw")),
    "lr_scheduler": lambda v: v == "cosine",
    "lr_scheduler_type": lambda v: v == "cosine",
    "lora_dropout": lambda v: float(v) == 0,
}

COUNTS = ("gradient_accumulation_steps", "warmup_steps", "lora_dropout")  # told in numbers too


@dataclass(frozen=True)
class Pipeline:
    """What such a file says, in words of this program.

    Attributes:
        kind: whose file it is.
        settings: for `make_config`.
        base, data, format_name, columns, output, quantize, dtype: as the flags of `detour train`;
            empty or None where the file says nothing.
        whole: all weights are trained, not an adapter.
        left: a line for every key that would change the result and cannot be followed.
    """

    kind: str
    settings: dict[str, Any]
    base: str
    data: str = ""
    format_name: str | None = None
    columns: dict[str, str] = field(default_factory=dict[str, str])
    output: str = ""
    quantize: str | None = None
    dtype: str | None = None
    whole: bool = False
    left: tuple[str, ...] = ()


def pipeline_of(values: Values, path: Path) -> Pipeline | None:
    """The file's pipeline; None where it is not one of another program.

    Raises:
        ConfigError: another way of training than supervised examples, several data sets, words
            where a number belongs, or a `dataset_info.json` that cannot be read or does not have
            the data set.
    """
    if "base_model" in values:
        _check_numbers(values, AXOLOTL, path)
        return _axolotl(values, path)
    if "model_name_or_path" in values:
        _check_numbers(values, LLAMA_FACTORY, path)
        return _llama_factory(values, path)
    return None


def _axolotl(values: Values, path: Path) -> Pipeline:
    _only(values, "rl", (None, False), path)
    _only(values, "adapter", (None, "", "lora", "qlora"), path)
    settings = _settings(values, AXOLOTL)
    targets = values.get("lora_target_modules")
    if values.get("lora_target_linear") or not targets:
        targets = "all-linear"
    settings["targets"] = targets if isinstance(targets, str) else tuple(cast("list[str]", targets))
    if values.get("peft_init_lora_weights") == "pissa":
        settings["init"] = "pissa"
    data = axolotl_data(values, path)
    four = values.get("adapter") == "qlora" or values.get("load_in_4bit")
    return Pipeline(
        "Axolotl",
        settings,
        str(values["base_model"]),
        data.place,
        data.format_name,
        data.columns,
        str(values.get("output_dir") or ""),
        "4bit" if four else "8bit" if values.get("load_in_8bit") else None,
        _dtype(values),
        not values.get("adapter"),
        (*data.left, *_left(values, AXOLOTL)),
    )


def _llama_factory(values: Values, path: Path) -> Pipeline:
    _only(values, "stage", (None, "sft", "pt"), path)
    _only(values, "finetuning_type", (None, "lora", "full"), path)
    settings = _settings(values, LLAMA_FACTORY)
    targets = str(values.get("lora_target") or "all")
    names = tuple(part.strip() for part in targets.split(","))
    settings["targets"] = "all-linear" if targets == "all" else names
    if values.get("pissa_init"):
        settings["init"] = "pissa"
    data = llama_factory_data(values, path)
    bits = values.get("quantization_bit")
    return Pipeline(
        "LlamaFactory",
        settings,
        str(values["model_name_or_path"]),
        data.place,
        "text" if values.get("stage") == "pt" else data.format_name,
        data.columns,
        str(values.get("output_dir") or ""),
        f"{bits}bit" if bits in (4, 8) else None,
        _dtype(values),
        values.get("finetuning_type") == "full",
        (*data.left, *_left(values, LLAMA_FACTORY)),
    )


def _settings(values: Values, names: Mapping[str, str]) -> dict[str, Any]:
    """What has a setting of its own; a step's rows are micro-batch times accumulation."""
    found = {ours: _number(values[theirs]) for theirs, ours in names.items()
             if values.get(theirs) is not None}  # fmt: skip
    if (found.get("steps") or 0) <= 0:
        found.pop("steps", None)
    else:
        found.pop("epochs", None)
    for name in ("rank", "steps", "seed", "patience", "micro_batch_size"):
        if isinstance(found.get(name), float):
            found[name] = int(found[name])
    times = int(_number(values.get("gradient_accumulation_steps") or 1))
    if "micro_batch_size" in found:
        found["batch_size"] = found["micro_batch_size"] * times
    elif times > 1:
        found["batch_size"] = times
    steps, warm = found.get("steps"), _number(values.get("warmup_steps"))
    if isinstance(warm, int | float) and "warmup" not in found and (steps or warm == 0):
        found["warmup"] = min(0.99, warm / steps) if steps else 0.0
    if (share := found.get("validation_share")) is not None and share >= 1:
        found.pop("validation_share")  # a number of rows: told among what is left
    return found


def _check_numbers(values: Values, names: Mapping[str, str], path: Path) -> None:
    """Refuse words where a number belongs, such as `val_set_size: 5%`."""
    for key in (*names, *COUNTS):
        value = values.get(key)
        if value is not None and not isinstance(_number(value), bool | int | float):
            raise ConfigError(
                text("{file}: {key} is not a number", file=path, key=key),
                expected=text("a number"),
                found=repr(value),
            )


def _number(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    """A number that YAML 1.1 reads as text: 2e-4."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _dtype(values: Values) -> str | None:
    return "bfloat16" if values.get("bf16") is True or values.get("bfloat16") is True else None


def _left(values: Values, names: Mapping[str, str]) -> list[str]:
    """A line for every key that asks for something else than what is done."""
    lines: list[str] = []
    for key, value in values.items():
        if value in NOTHING or key in QUIET:
            continue
        if key in names:
            if names[key] == "validation_share" and float(value) >= 1:
                lines.append(text("{key}: {value}: a share of the rows is wanted, not their number",
                                  key=key, value=value))  # fmt: skip
            continue
        if key == "warmup_steps" and _settings(values, names).get("warmup") is not None:
            continue
        if key in USUAL and USUAL[key](value):
            continue
        lines.append(joined(": ", [key, _why(key, value, names)]))
    return lines


def _why(key: str, value: Any, names: Mapping[str, str]) -> str:  # noqa: ANN401 - whatever YAML holds
    """What is done instead."""
    reasons = {
        "lora_dropout": text("no dropout is applied"),
        "optimizer": text("AdamW is used"),
        "optim": text("AdamW is used"),
        "lr_scheduler": text("a warm-up and a cosine down to a tenth are used"),
        "lr_scheduler_type": text("a warm-up and a cosine down to a tenth are used"),
        "sequence_len": text("nothing is cut: a row that is too long is an error"),
        "cutoff_len": text("nothing is cut: a row that is too long is an error"),
        "template": text("the base's own chat template is used"),
        "chat_template": text("the base's own chat template is used"),
        "warmup_steps": text("warmup is a share of the steps"),
        "train_on_inputs": text("only answers are learned"),
        "train_on_prompt": text("only answers are learned"),
        "max_samples": text("all rows are used"),
    }
    if key in reasons:
        return reasons[key]
    told = text("{value} has no meaning here", value=repr(value)[:40])
    near = get_close_matches(key, sorted({*names, *QUIET, *USUAL, *reasons}), n=1)
    if not near:
        return told
    return joined("; ", [told, text("did you mean {close!r}?", close=near[0])])


def _only(values: Values, key: str, allowed: Sequence[Any], path: Path) -> None:
    if values.get(key) not in allowed:
        raise ConfigError(
            text("{path} asks for {key}: {value}, which cannot be done here",
                 path=path, key=key, value=values[key]),
            expected=", ".join(str(one) for one in allowed if one) or text("none"),
        )  # fmt: skip
