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
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from detour.files import write_bytes_atomically
from detour.model.loss import IGNORED
from recipes.starter.mixture import Mixture
from recipes.starter.start import prepare
from recipes.starter.tokens import Encoder, train_tokenizer

GENERATORS = ("rows", "support", "reading", "examples", "mixture", "tokens", "start")
WORDINGS = ("world", "phrasing")  # of the library, in training/
UNFINISHED = 3  # exit code of a stretch that was stopped or ran out of time


@dataclass(frozen=True)
class Recipe:
    """Every setting of the run; changing one starts a new run."""

    vocabulary: int = 4096
    width: int = 256
    layers: int = 6
    heads: int = 8
    mlp: int = 704
    context: int = 1024
    rope_theta: float = 1e6  # most rotary pairs turn slowly, so that contents match at a distance
    steps: int = 12_400
    tokens_per_batch: int = 3072  # padded
    batches_per_window: int = 64  # rows of a window are sorted by length before batching
    muon_rate: float = 2.5e-3  # of the layers' matrices
    muon_momentum: float = 0.95
    learning_rate: float = 2.5e-3  # of all others, with AdamW
    warmup: int = 100
    later_part: float = 0.6452  # from this share of the steps on, rows are drawn as for this part
    last_part: float = 0.8871
    constant_until: float = 0.3  # share of the steps before the last part; then linear to `floor`
    last_rate: float = 0.5  # share of the highest rate that the last part goes up to
    floor: float = 0.02
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    bf16: bool = True  # autocast of the matrix products; weights and moments stay fp32
    seed: int = 1


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
        attention_bias=True,  # see `start.py`
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    prepare(model, recipe.seed)
    model.config.use_cache = False
    return model


Batch = tuple[Tensor, Tensor]  # ids (rows, tokens), targets (rows, tokens)
Encoded = tuple[list[int], list[bool]]  # ids, and which of them are learned


def window(recipe: Recipe, mixture: Mixture, encoder: Encoder, index: int) -> list[Batch]:
    """The batches of one window, drawn from its own seed, so that a resumed run sees the same.

    Rows of about one length share a batch. More are drawn than needed; the batches are shuffled
    before the surplus is left out, so that no length is preferred. A row that does not fit the
    context is not read (one in some 600,000: sixteen long sources).
    """
    rng = random.Random(f"{recipe.seed}/{index}")
    begins = (round(share * recipe.steps) for share in (recipe.later_part, recipe.last_part))
    part = sum(index * recipe.batches_per_window >= begin for begin in begins)
    rows: list[Encoded] = []
    batches: list[list[Encoded]] = []
    while len(batches) < recipe.batches_per_window:
        rows += _drawn(recipe, mixture, encoder, rng, part)
        rows.sort(key=lambda row: len(row[0]))
        batches = grouped(rows, recipe.tokens_per_batch)
    rng.shuffle(batches)
    return [pad(batch, encoder.pad) for batch in batches[: recipe.batches_per_window]]


def _drawn(
    recipe: Recipe, mixture: Mixture, encoder: Encoder, rng: random.Random, part: int
) -> list[Encoded]:
    """Rows of about a window's tokens together."""
    rows: list[Encoded] = []
    count = 0
    while count < recipe.tokens_per_batch * recipe.batches_per_window:
        row = encoder.encode(mixture.draw(rng, part))
        count += len(row[0])
        if len(row[0]) <= recipe.context:
            rows.append(row)
    return rows


def grouped(rows: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    """Neighbours in one batch, as many as fit once padded; rows are sorted by length."""
    batches: list[list[Encoded]] = []
    for row in rows:
        if not batches or (len(batches[-1]) + 1) * len(row[0]) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def pad(rows: Sequence[Encoded], pad_id: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad_id)
    targets = torch.full((len(rows), longest), IGNORED)
    for r, (row, learned) in enumerate(rows):
        ids[r, : len(row)] = torch.tensor(row)
        following = [t if keep else IGNORED for t, keep in zip(row[1:], learned[1:], strict=True)]
        targets[r, : len(following)] = torch.tensor(following)
    return ids, targets


def loss_of(model: LlamaForCausalLM, batch: Batch, bf16: bool) -> Tensor:
    """Cross entropy on the learned tokens; the head runs on those alone.

    Rows are padded on the right and attention is causal, so no mask is needed.
    """
    ids, targets = batch
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=bf16):
        hidden = model.model(input_ids=ids).last_hidden_state
        picked = targets != IGNORED
        logits = model.lm_head(hidden[picked])
    return torch.nn.functional.cross_entropy(logits.float(), targets[picked])


def rate(recipe: Recipe, step: int) -> float:
    """The share of the highest learning rate at a step: up, constant, down, and once more.

    The last part goes up to `last_rate` and down again (warm restarts: Loshchilov and Hutter
    2017, arXiv:1608.03983).
    """
    last = round(recipe.last_part * recipe.steps)
    if step < last:
        highest, begin, turn, end = 1.0, 0, recipe.constant_until * last, last
    else:
        highest, begin, turn, end = recipe.last_rate, last, last, recipe.steps
    up = (step - begin + 1) / recipe.warmup
    down = (end - step) / (end - turn)
    return highest * min(up, 1.0, max(recipe.floor, down))


def optimisers_for(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding, the norms and the biases.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; its step is scaled to the
    size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one schedule serves both.
    """
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.muon_rate, momentum=recipe.muon_momentum,
            weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=0.0, fused=True
        ),
    ]  # fmt: skip


def data_sha256(world: Path | None = None, code: Path | None = None) -> str:
    """What the rows are drawn from: the world's files, and the code that words and draws them.

    By default the packaged world and the code in this folder; the library's is always its own.
    """
    folder = world or Path(str(files("detour.starter") / "world"))
    generators = code or Path(__file__).parent
    library = Path(str(files("detour.training")))
    digest = sha256()
    for root, paths in (
        (folder, [p for p in folder.rglob("*") if p.suffix in (".csv", ".yaml")]),
        (generators, [generators / f"{name}.py" for name in GENERATORS]),
        (library, [library / f"{name}.py" for name in WORDINGS]),
    ):
        for path in sorted(paths):
            told = f"{path.relative_to(root).as_posix()} {sha256(path.read_bytes()).hexdigest()}\n"
            digest.update(told.encode())
    return digest.hexdigest()


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
        recipe = Recipe(steps=options.steps)
    done = run(recipe, options.out, options.minutes, options.device)
    return 0 if done else UNFINISHED


def run(recipe: Recipe, out: Path, minutes: float, device: str) -> bool:
    """Train until done or out of time; true when done."""
    out.mkdir(parents=True, exist_ok=True)
    mixture = Mixture()
    tokenizer = load_tokenizer(recipe, mixture, out)
    encoder = Encoder(tokenizer)
    model = make_model(recipe, tokenizer).to(device)
    optimisers = optimisers_for(model, recipe)
    checkpoint = out / "checkpoint.pt"
    identity = {"recipe": json.dumps(asdict(recipe)), "data": data_sha256()}
    step, running = 0, math.nan
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if {key: state.get(key) for key in identity} != identity:
            told = "belongs to another recipe, or was made from other data"
            raise SystemExit(f"{checkpoint} {told}; remove {out} to start anew")
        model.load_state_dict(state["model"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        step, running = state["step"], state["loss"]
        print(f"resumed at step {step}", flush=True)
    stopped: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stopped.append(number))
    began = saved = time.monotonic()
    tokens, first = 0, step

    def store() -> None:
        kept = [optimiser.state_dict() for optimiser in optimisers]
        state = {"model": model.state_dict(), "optimisers": kept, "step": step, "loss": running}
        stream = BytesIO()
        torch.save({**state, **identity}, stream)
        write_bytes_atomically(checkpoint, stream.getvalue())

    rates = (recipe.muon_rate, recipe.learning_rate)
    batches: list[Batch] = []
    while step < recipe.steps:
        position = step % recipe.batches_per_window
        if not batches:
            batches = window(recipe, mixture, encoder, step // recipe.batches_per_window)
        ids, targets = (tensor.to(device) for tensor in batches[position])
        for optimiser, highest in zip(optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = highest * rate(recipe, step)
        loss = loss_of(model, (ids, targets), recipe.bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        tokens += ids.numel()
        step += 1
        if step % recipe.batches_per_window == 0:
            batches = []
        if step % 50 == 0 or step == recipe.steps:
            took = time.monotonic() - began
            left = took / (step - first) * (recipe.steps - step)
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
    done = step >= recipe.steps
    if done:
        model.config.use_cache = True
        model.save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
    print("done" if done else f"stopped at step {step}; the same command resumes", flush=True)
    return done


def load_tokenizer(recipe: Recipe, mixture: Mixture, out: Path) -> PreTrainedTokenizerFast:
    folder = out / "tokenizer"
    if not folder.exists():
        made = train_tokenizer(mixture, recipe.vocabulary, recipe.seed, recipe.context)
        made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


if __name__ == "__main__":
    raise SystemExit(main())
