"""Hypernetworks on Qwen3-0.6B's shape: a supervised step, and generating all of a model's updates.

    python benchmarks/hypernet/against_hooks.py --out ratios.jsonl

The step: 8 tasks, a row each, generated rank-8 updates, forward and backward through the frozen
base (bf16, random weights) into the hypernetwork. Beside slots stand the way of the reference
implementation of Text-to-LoRA, told in our own words (hooks that repeat A and B for every token),
and a loop over the tasks. Generation: all layers and modules in one pass, against one at a time.
The base alone, its rows at once and in turn, says how much a loop can lose at all.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "decode"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interleaved import Way, compare, process_time
from models import SHAPES

from detour.hypernetwork.config import NetworkConfig
from detour.hypernetwork.encoder import Described
from detour.hypernetwork.network import Generated, Hypernetwork
from detour.hypernetwork.places import Group, Places, places_of
from detour.model.base import Base
from detour.model.loss import IGNORED, completion_loss, hidden_states
from detour.slots.content import trainable

TASKS = 8
EMBEDDING = 384


class Step:
    """One supervised step, in three ways."""

    def __init__(self, base: Base, targets: list[str], tokens: int) -> None:
        self.base = base
        shapes = {name: base.slots.shapes[name] for name in base.slots.named(targets)}
        torch.manual_seed(0)
        config = NetworkConfig.model_validate(
            {"encoder": "mean", "rank": 8, "hidden": 512, "task_width": 64, "dropout": 0.0}
        )
        self.network = Hypernetwork(config, places_of(shapes), EMBEDDING)
        for head in self.network.heads:  # as after some training: nothing is zero
            for parameter in head.parameters():
                parameter.data.add_(1e-3 * torch.randn_like(parameter))
        self.described = Described(
            torch.randn(TASKS, 1, EMBEDDING), torch.ones(TASKS, 1, dtype=torch.bool)
        )
        vocabulary = base.engine.vocabulary
        self.ids = torch.randint(0, vocabulary, (TASKS, tokens))
        self.mask = torch.ones_like(self.ids)
        self.targets = torch.full_like(self.ids, IGNORED)
        answered = tokens // 4
        self.targets[:, -answered - 1 : -1] = self.ids[:, -answered:]
        _ = base.head

    def slots(self) -> float:
        """Detour: factors of its own for each row, one batched product a layer."""
        generated = self.network(self.described)
        rows = torch.arange(TASKS)
        with self.base.hold(generated.contents()), self.base.slots.rows(rows, self.ids.shape[1]):
            loss = self._loss(slice(None))
        return self._finish(loss)

    def hooks(self) -> float:
        """The reference's way: every token gets a copy of its row's A and B."""
        with hooked(self.base, self.network(self.described)):
            loss = self._loss(slice(None))
        return self._finish(loss)

    def loop(self) -> float:
        """One task after another."""
        generated = self.network(self.described)
        of_tasks = {
            layer: list(zip(down.unbind(), up.unbind(), strict=True))
            for layer, (down, up) in generated.factors.items()
        }
        total = torch.zeros(())
        for task in range(TASKS):
            contents = {
                layer: trainable(*pairs[task], generated.scale) for layer, pairs in of_tasks.items()
            }
            with self.base.hold(contents):
                total = total + self._loss(slice(task, task + 1)) / TASKS
        return self._finish(total)

    @torch.no_grad()
    def base_at_once(self) -> float:
        """The frozen base alone, all rows together: what no way of adapting it can be rid of."""
        return float(self._loss(slice(None)))

    @torch.no_grad()
    def base_in_turn(self) -> float:
        """The frozen base alone, a row at a time."""
        return sum(float(self._loss(slice(task, task + 1))) for task in range(TASKS)) / TASKS

    def _loss(self, rows: slice) -> Tensor:
        hidden = hidden_states(self.base.model, self.ids[rows], self.mask[rows])
        return completion_loss(hidden, self.base.head, self.targets[rows])

    def _finish(self, loss: Tensor) -> float:
        loss.backward()
        norm = sum(
            float(p.grad.square().sum()) for p in self.network.parameters() if p.grad is not None
        )
        self.network.zero_grad(set_to_none=True)
        return norm


@contextmanager
def hooked(base: Base, generated: Generated) -> Generator[None]:
    """Forward hooks that add scale · B·A·x, with A and B repeated for every token."""

    def hook_for(down: Tensor, up: Tensor):  # noqa: ANN202
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].to(down.dtype)
            tokens = x.shape[1]
            flat = x.reshape(-1, x.shape[-1], 1)
            a = down.repeat_interleave(tokens, 0)
            b = up.mT.repeat_interleave(tokens, 0)
            added = (b @ (a @ flat)).reshape(*x.shape[:-1], -1)
            return output + (generated.scale * added).to(output.dtype)

        return hook

    handles = [
        base.slots.module(layer).register_forward_hook(hook_for(down, up))
        for layer, (down, up) in generated.factors.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def generation(shapes: dict[str, tuple[int, int]], dtype: torch.dtype) -> tuple[Way, Way]:
    """All updates of a 28-layer model in one pass; and one layer and module at a time."""
    config = NetworkConfig.model_validate(
        {"encoder": "mean", "rank": 8, "hidden": 512, "task_width": 64, "dropout": 0.0}
    )
    torch.manual_seed(0)
    whole = Hypernetwork(config, places_of(shapes), EMBEDDING).to(dtype).eval()
    described = Described(torch.randn(1, 1, EMBEDDING, dtype=dtype), torch.ones(1, 1).bool())
    parts = [
        _only(whole, group, place)
        for group in whole.places.groups
        for place in range(len(group.layers))
    ]

    @torch.no_grad()
    def at_once() -> object:
        return whole(described)

    @torch.no_grad()
    def one_by_one() -> object:
        return [part(described) for part in parts]

    return at_once, one_by_one


def _only(whole: Hypernetwork, group: Group, place: int) -> Hypernetwork:
    """The same network, asked for one layer of one module."""
    part = copy.copy(whole)
    part._modules = dict(whole._modules)
    number = whole.places.groups.index(group)
    one = Group(
        group.module, (group.layers[place],), (group.depths[place],), group.out, group.width
    )
    part.places = Places((one,), whole.places.depths)
    part._modules["heads"] = nn.ModuleList([whole.heads[number]])
    module = nn.Embedding(1, whole.config.place_width)
    module.weight = nn.Parameter(whole.module.weight[number : number + 1].detach())
    part._modules["module"] = module
    return part


def main() -> None:
    """Print the ratios; add them to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base = Base.from_model(SHAPES["0.6b"].model())
    found: list[tuple[str, object]] = []

    def wanted(name: str) -> bool:
        return any(part in name for part in given.only)

    step = Step(base, given.targets.split(","), given.tokens)
    for name, other in (
        ("step: hooks that repeat", step.hooks),
        ("step: a loop over tasks", step.loop),
    ):
        if wanted(name):
            ours, theirs = step.slots(), other()
            print(f"  gradient norms agree: {ours:.6g} {theirs:.6g}")
            found.append((name, compare(step.slots, other, given.pairs)))
            print(f"  {name}: {found[-1][1]}", flush=True)
    if wanted("the base alone: a loop"):
        ratio = compare(step.base_at_once, step.base_in_turn, given.pairs)
        found.append(("the base alone: a loop", ratio))
        print(f"  {found[-1][0]}: {ratio}", flush=True)
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    for dtype in (torch.float32, torch.bfloat16):
        name = f"generation of {len(shapes)} updates, {dtype}".replace("torch.", "")
        if wanted(name):
            at_once, one_by_one = generation(shapes, dtype)
            found.append((name, compare(at_once, one_by_one, given.pairs, process_time)))
            print(f"  {name}: {found[-1][1]}", flush=True)
    if given.out:
        with given.out.open("a") as stream:
            for name, ratio in found:
                measured = {"targets": given.targets, "tokens": given.tokens, **vars(ratio)}
                stream.write(json.dumps({"name": name, **measured}) + "\n")


if __name__ == "__main__":
    main()
