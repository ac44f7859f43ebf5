"""Detour against PEFT on the same tiny model: one training step, and a batch of mixed adapters.

    python benchmarks/against_peft.py

A Llama of 6 layers, 256 wide, vocabulary 4,096, random weights, fp32, one thread, process time.
"""

from __future__ import annotations

import copy
import random
import tempfile
from pathlib import Path

import torch
from interleaved import compare
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.decoding.request import Request, Sampling
from detour.model.base import Base
from detour.model.rows import Encoded, padded
from detour.training.factors import Factors
from detour.training.objective import answer_loss

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS, RANK = 8, 8


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=6,
            num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=512,
            bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    ).eval()  # fmt: skip


def training_step() -> None:
    rng = random.Random(0)
    rows = []
    for _ in range(ROWS):
        length = rng.randint(20, 128)
        ids = [rng.randrange(1, 4096) for _ in range(length)]
        rows.append(Encoded(ids, [place > 0.75 * length for place in range(length)]))
    batch = padded(rows, 0)
    base = Base.from_model(tiny())
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    factors = Factors(shapes, RANK, 2.0, 0, base.device)
    head = base.head
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
    peft = get_peft_model(tiny(), config)
    labels = torch.where(batch.targets != -100, batch.targets, -100)

    def ours() -> None:
        answer_loss(base.forward, head, batch).backward()

    def theirs() -> None:
        logits = peft(input_ids=batch.ids, attention_mask=batch.mask).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()

    with base.hold(factors.contents()):
        print(f"training step, {ROWS} rows, a quarter supervised: {compare(ours, theirs)}")


def mixed_batch() -> None:
    count, new = 8, 24
    with tempfile.TemporaryDirectory() as scratch:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
        peft: PeftModel | None = None
        names = [f"a{n}" for n in range(count)]
        for name in names:
            if peft is None:
                peft = get_peft_model(tiny(), config, adapter_name=name)
            else:
                peft.add_adapter(name, copy.deepcopy(config))
        assert peft is not None
        torch.manual_seed(1)
        for key, parameter in peft.named_parameters():
            if "lora_B" in key:
                parameter.data.normal_(std=0.02)
        peft.save_pretrained(scratch)
        adapters = [Adapter.load(Path(scratch) / name) for name in names]
        peft.eval()
        base = Base.from_model(tiny())
        ids = torch.randint(1, 4096, (16, 32), generator=torch.Generator().manual_seed(2))
        chains = [Chain.of(adapters[row % count]) for row in range(16)]
        requests = [
            Request(str(n), tuple(row.tolist()), chains[n], Sampling(max_new_tokens=new))
            for n, row in enumerate(ids)
        ]
        wanted = [names[row % count] for row in range(16)]

        def ours() -> object:
            return base.engine.generate(requests)

        def theirs() -> object:
            assert peft is not None
            with torch.inference_mode():
                return peft.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=wanted,
                    max_new_tokens=new, do_sample=False,
                )  # fmt: skip

        print(f"16 rows, {count} adapters mixed, {new} new tokens: {compare(ours, theirs, 7)}")


def main() -> None:
    torch.set_num_threads(1)
    training_step()
    mixed_batch()


if __name__ == "__main__":
    main()
