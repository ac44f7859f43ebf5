"""The losses of the first steps beside PEFT's, in fp32.

    python benchmarks/train/parity.py [--shape tiny|real|0.6b] [--steps 20] [--threads 2] [--json]

The same rows in the same batches, the same first factors, AdamW, rates and clipping. PEFT's model
is padded and run by transformers as a user would, its gradient taken by torch; ours is the loop of
`detour train`. Told is the largest difference of a step's loss, in nats.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

import torch
from loop import Loop
from peft import LoraConfig, get_peft_model
from shapes import ALPHA, RANK, SHAPES, TARGETS, Shape
from torch import Tensor

from detour.training.config import rate_at

RATE = 1e-3  # as `detour train` chooses it for such widths: twenty steps have to move something


def ours(shape: Shape, steps: int) -> tuple[list[float], dict[str, tuple[Tensor, Tensor]], Loop]:
    """Losses step by step, the factors that were begun with, and the loop."""
    loop = Loop.of(shape, torch.float32, steps=steps, learning_rate=RATE)
    begun = {name: (down.detach().clone(), up.detach().clone())
             for name, (down, up) in loop.factors.pairs.items()}  # fmt: skip
    losses: list[float] = []
    loop.run(heard=losses.append)
    return losses, begun, loop


def of_peft(shape: Shape, begun: Mapping[str, tuple[Tensor, Tensor]], loop: Loop) -> list[float]:
    """The same by PEFT's layers and a plain loop."""
    model = get_peft_model(
        shape.model(torch.float32),
        LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=list(TARGETS)),
    )
    parameters = dict(model.named_parameters())
    for name, (down, up) in begun.items():
        own = f"base_model.model.{name}"
        parameters[f"{own}.lora_A.default.weight"].data.copy_(down)
        parameters[f"{own}.lora_B.default.weight"].data.copy_(up.mT)
    learned = [p for p in parameters.values() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, RATE, (0.9, 0.99), weight_decay=0.0)
    config, plan = loop.config, loop.plan
    losses: list[float] = []
    for step in range(plan.steps):
        batch = loop.batches[step]
        labels = batch.targets.roll(1, 1)
        labels[:, 0] = -100
        loss = model(input_ids=batch.ids, attention_mask=batch.mask, labels=labels).loss
        losses.append(float(loss.detach()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, config.clip)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, plan, config.warmup)
        optimiser.step()
        optimiser.zero_grad()
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = SHAPES[given.shape]
    mine, begun, loop = ours(shape, given.steps)
    theirs = of_peft(shape, begun, loop)
    furthest = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
    if given.json:
        print(json.dumps({"shape": given.shape, "ours": mine, "peft": theirs,
                          "furthest": furthest}))  # fmt: skip
        return
    print(f"{given.shape}, {given.steps} steps: {mine[0]:.4f} to {mine[-1]:.4f}, "
          f"at most {furthest:.1e} from PEFT's")  # fmt: skip


if __name__ == "__main__":
    main()
