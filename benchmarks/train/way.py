"""One way of training, in a process of its own: seconds of processor time and peak memory.

    python benchmarks/train/way.py detour --shape real

Prints one JSON object. Every way learns the same rows, `BATCH` at a time, with AdamW and LoRA in
all linear layers; a first epoch warms up and is not counted. `run.py` calls it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from shapes import ALPHA, BATCH, RANK, RATE, SHAPES, TARGETS, Shape

Train = Callable[[], object]
DETOUR = {  # what is taken away, by name
    "detour": (),
    "detour fp32": ("bf16",),
    "no packing": ("packing",),
    "no own attention": ("attention",),
    "no sorting": ("sorting",),
    "all rows at once": ("parts",),
    "all rows at once, fp32": ("parts", "bf16"),
    "head on all tokens": ("head",),
    "updates in fp32": ("function",),
}


def detour(shape: Shape, without: tuple[str, ...] = ()) -> Train:
    """The loop of `detour train`, without its validations."""
    from unittest.mock import patch

    from loop import Loop

    from detour.model.rows import Batch
    from detour.training.batches import Order

    loop = Loop.of(shape, torch.float32 if "bf16" in without else torch.bfloat16)
    if "sorting" in without:
        lengths = loop.batches.lengths
        loop.batches._order = Order(lengths, BATCH, 0, bucket=1)
    if "parts" in without:
        loop.fit.tokens = None
    if "packing" in without:
        loop.forward.packs = False

    def everywhere(batch: Batch) -> torch.Tensor:
        given = loop.base.model(input_ids=batch.ids, attention_mask=batch.mask)
        logits = given.logits.float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())

    patches = {
        "attention": [(f"detour.model.{name}.torchs_is_slow", lambda _: False)
                      for name in ("packing", "attention")],
        "function": [("detour.slots.arithmetic._learned", plain_low_rank)],
    }  # fmt: skip

    def train() -> None:
        with ExitStack() as stack:
            for name in without:
                for target, stands_in in patches.get(name, ()):
                    stack.enter_context(patch(target, stands_in))
            loop.run(everywhere if "head" in without else None)

    return train


def plain_low_rank(y: Any, x: Any, down: Any, up: Any, gate: Any = None) -> Any:  # noqa: ANN401
    """An update whose products run in the factors' type, differentiated by torch."""
    hidden = x.to(down.dtype) @ down.mT
    return y + ((hidden if gate is None else hidden * gate) @ up).to(y.dtype)


def peft(shape: Shape, dtype: torch.dtype) -> Any:  # noqa: ANN401
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK, lora_alpha=int(ALPHA), target_modules=list(TARGETS), task_type="CAUSAL_LM"
    )
    return get_peft_model(shape.model(dtype), config)


ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 1, "per_device_train_batch_size": BATCH, "learning_rate": RATE,
    "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1000,
    "use_cpu": True, "seed": 0,
}  # fmt: skip


def trainer(shape: Shape, dtype: torch.dtype) -> Train:
    """Trainer of transformers over PEFT."""
    from transformers import Trainer, TrainingArguments

    model = peft(shape, dtype)
    rows = [
        {"input_ids": ids, "labels": [-100] * start + ids[start:]} for ids, start in shape.data()
    ]

    def together(given: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in given)
        lengths = [len(row["input_ids"]) for row in given]
        return {
            "input_ids": torch.tensor([r["input_ids"] + [0] * (longest - n)
                                       for r, n in zip(given, lengths, strict=True)]),
            "attention_mask": torch.tensor([[1] * n + [0] * (longest - n) for n in lengths]),
            "labels": torch.tensor([r["labels"] + [-100] * (longest - n)
                                    for r, n in zip(given, lengths, strict=True)]),
        }  # fmt: skip

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(output_dir=folder, **ARGUMENTS)
            Trainer(model, arguments, train_dataset=rows, data_collator=together).train()

    return train


def trl(shape: Shape, dtype: torch.dtype = torch.float32, **more: Any) -> Train:  # noqa: ANN401
    """TRL's SFTTrainer; without more settings its defaults: autocast over weights in fp32."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {"<pad>": 0, "<eos>": 1} | {f"w{n}": n for n in range(2, shape.vocabulary)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>", eos_token="<eos>", unk_token="<pad>",
    )  # fmt: skip
    data = Dataset.from_list([
        {"input_ids": ids, "completion_mask": [0] * start + [1] * (len(ids) - start)}
        for ids, start in shape.data()
    ])  # fmt: skip
    model = peft(shape, dtype)

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = SFTConfig(output_dir=folder, completion_only_loss=True, **ARGUMENTS, **more)
            SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer).train()

    return train


BEST: dict[str, Any] = {
    "bf16": False, "gradient_checkpointing": False, "padding_free": True, "max_length": None,
}  # fmt: skip
WAYS: dict[str, Callable[[Shape], Train]] = {
    **{name: lambda shape, w=without: detour(shape, w) for name, without in DETOUR.items()},
    "trl": trl,
    "trl best": lambda shape: trl(shape, torch.bfloat16, **BEST),
    "trl best fp32": lambda shape: trl(shape, torch.float32, **BEST),
    "trainer": lambda shape: trainer(shape, torch.bfloat16),
    "trainer fp32": lambda shape: trainer(shape, torch.float32),
}


def peak() -> int:
    """Bytes of memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Bytes that it has now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("--shape", choices=sorted(SHAPES), default="real")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    shape = SHAPES[given.shape]
    sys.stdout = sys.stderr  # trainers print
    train = WAYS[given.way](shape)
    loaded = resident()
    train()
    began = time.process_time(), time.perf_counter()
    train()
    seconds, wall = time.process_time() - began[0], time.perf_counter() - began[1]
    tokens = sum(len(ids) for ids, _ in shape.data())
    told = {"seconds": seconds, "wall": wall, "tokens": tokens, "memory": peak() - loaded}
    print(json.dumps(told), file=sys.__stdout__)


if __name__ == "__main__":
    main()
