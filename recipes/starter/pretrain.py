"""Make the starter: one resumable command.

    python -m recipes.starter.pretrain --out work/starter --minutes 80

It draws rows, trains a tokenizer and a small Llama, checkpoints every few minutes, and resumes
where it stopped. The number of steps is fixed (not the minutes): `--minutes` only bounds one
stretch, and a stretch that ends too early ends with exit code 3. `publish.py` measures the result
and puts it into the package.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from detour.training.world import World
from recipes.starter.rows import SHARES, STYLE_WEIGHTS, Writer
from recipes.starter.tokens import Encoder, train_tokenizer

IGNORE = -100
UNFINISHED = 3  # exit code of a stretch that was stopped or ran out of time


@dataclass(frozen=True)
class Recipe:
    """Every setting of the run; changing one starts a new run."""

    vocabulary: int = 3072
    width: int = 192
    layers: int = 5
    heads: int = 6
    mlp: int = 576
    context: int = 512
    steps: int = 7000
    widened_steps: int = 1400  # after those, with more phrasings (marked "+" in the data)
    widened_rate: float = 8e-4  # then linear down to `floor` of the first rate
    tokens_per_batch: int = 2048  # padded
    batches_per_window: int = 64  # rows of a window are sorted by length before batching
    learning_rate: float = 2.5e-3
    warmup: int = 150
    constant_until: float = 0.3  # then linear down to `floor`
    floor: float = 0.02
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    bf16: bool = True  # autocast of the matrix products; weights and moments stay fp32
    seed: int = 1

    @property
    def total(self) -> int:
        """All steps."""
        return self.steps + self.widened_steps


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.config.use_cache = False
    return model


Batch = tuple[Tensor, Tensor]  # ids (rows, tokens), targets (rows, tokens)


def window(recipe: Recipe, writer: Writer, encoder: Encoder, index: int) -> list[Batch]:
    """The batches of one window, drawn from its own seed, so that a resumed run sees the same."""
    rng = random.Random(f"{recipe.seed}/{index}")
    writer.widened = index * recipe.batches_per_window >= recipe.steps
    wanted = recipe.tokens_per_batch * recipe.batches_per_window
    rows: list[tuple[list[int], list[bool]]] = []
    while sum_tokens(rows, wanted) < wanted:
        rows += [encoder.encode(writer.draw(rng)) for _ in range(256)]
    rows.sort(key=lambda row: len(row[0]))
    # A known flaw, to be mended with the next pretraining: padding fills the batches before the
    # rows are used up, so the longest rows of every window are left out (59 to 82 of 4,352), and
    # nothing above about 62 tokens is ever read. The packaged weights come from exactly this.
    batches: list[Batch] = []
    start = 0
    while start < len(rows) and len(batches) < recipe.batches_per_window:
        count = max(1, recipe.tokens_per_batch // len(rows[start][0]))
        longest = len(rows[min(start + count, len(rows)) - 1][0])
        count = max(1, recipe.tokens_per_batch // longest)
        batches.append(pad(rows[start : start + count], encoder.pad))
        start += count
    rng.shuffle(batches)
    return batches


def sum_tokens(rows: list[tuple[list[int], list[bool]]], enough: int) -> int:
    return min(enough, sum(len(ids) for ids, _ in rows))


def pad(rows: list[tuple[list[int], list[bool]]], pad_id: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad_id)
    targets = torch.full((len(rows), longest), IGNORE)
    for r, (row, learned) in enumerate(rows):
        ids[r, : len(row)] = torch.tensor(row)
        following = [t if keep else IGNORE for t, keep in zip(row[1:], learned[1:], strict=True)]
        targets[r, : len(following)] = torch.tensor(following)
    return ids, targets


def loss_of(model: LlamaForCausalLM, batch: Batch, bf16: bool) -> Tensor:
    """Cross entropy on the learned tokens; the head runs on those alone.

    Rows are padded on the right and attention is causal, so no mask is needed.
    """
    ids, targets = batch
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=bf16):
        hidden = model.model(input_ids=ids).last_hidden_state
        picked = targets != IGNORE
        logits = model.lm_head(hidden[picked])
    return torch.nn.functional.cross_entropy(logits.float(), targets[picked])


def rate(recipe: Recipe, step: int) -> float:
    """The share of the highest learning rate at a step."""
    if step >= recipe.steps:
        start = recipe.widened_rate / recipe.learning_rate
        left = 1 - (step - recipe.steps) / recipe.widened_steps
        return max(recipe.floor, start * left)
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    turn = recipe.constant_until * recipe.steps
    if step < turn:
        return 1.0
    left = (recipe.steps - step) / (recipe.steps - turn)
    return max(recipe.floor, left)


def optimiser_for(model: LlamaForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def data_sha256(world: Path | None = None) -> str:
    """What the rows are drawn from: the world's files (default: the packaged ones) and shares."""
    folder = world or Path(str(files("detour.starter") / "world"))
    digest = sha256(json.dumps([SHARES, STYLE_WEIGHTS]).encode())
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def save(path: Path, state: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the model is done, `UNFINISHED` when the same command must go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("work/starter"))
    parser.add_argument("--minutes", type=float, default=80.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="a shorter run, for trying the recipe")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = Recipe()
    if options.steps:
        recipe = Recipe(steps=options.steps, widened_steps=options.steps // 5 + 1)
    done = run(recipe, options.out, options.minutes, options.device)
    return 0 if done else UNFINISHED


def run(recipe: Recipe, out: Path, minutes: float, device: str) -> bool:
    """Train until done or out of time; true when done."""
    out.mkdir(parents=True, exist_ok=True)
    writer = Writer(World.load())
    tokenizer = load_tokenizer(recipe, writer, out)
    encoder = Encoder(tokenizer)
    model = make_model(recipe, tokenizer).to(device)
    optimiser = optimiser_for(model, recipe)
    checkpoint = out / "checkpoint.pt"
    identity = {"recipe": json.dumps(asdict(recipe)), "data": data_sha256()}
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if {key: state.get(key) for key in identity} != identity:
            told = "belongs to another recipe, or was made from other data"
            raise SystemExit(f"{checkpoint} {told}; remove {out} to start anew")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        print(f"resumed at step {step}", flush=True)
    stopped: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stopped.append(number))
    began = saved = time.monotonic()
    tokens, first, running = 0, step, math.nan

    def store() -> None:
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
        save(checkpoint, {**state, **identity})

    batches: list[Batch] = []
    while step < recipe.total:
        position = step % recipe.batches_per_window
        if not batches:
            batches = window(recipe, writer, encoder, step // recipe.batches_per_window)
        if position >= len(batches):
            raise SystemExit(f"window {step} holds too few batches")
        ids, targets = (tensor.to(device) for tensor in batches[position])
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate(recipe, step)
        loss = loss_of(model, (ids, targets), recipe.bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        tokens += ids.numel()
        step += 1
        if step % recipe.batches_per_window == 0:
            batches = []
        if step % 50 == 0 or step == recipe.total:
            took = time.monotonic() - began
            left = took / (step - first) * (recipe.total - step)
            line = {"step": step, "loss": round(running, 4), "tokens_per_s": round(tokens / took)}
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({**line, "seconds": round(took, 1)}) + "\n")
            print(f"{line}  {left / 60:.1f} min left", flush=True)
        if time.monotonic() - saved > 180:
            store()
            saved = time.monotonic()
        if stopped or time.monotonic() - began > minutes * 60:
            break
    store()
    done = step >= recipe.total
    if done:
        model.config.use_cache = True
        model.save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
    print("done" if done else f"stopped at step {step}; the same command resumes", flush=True)
    return done


def load_tokenizer(recipe: Recipe, writer: Writer, out: Path) -> PreTrainedTokenizerFast:
    folder = out / "tokenizer"
    if not folder.exists():
        train_tokenizer(writer, recipe.vocabulary, recipe.seed).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


if __name__ == "__main__":
    raise SystemExit(main())
