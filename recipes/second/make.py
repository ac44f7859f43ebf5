"""A second trained model, so that no proof rests on the starter alone: made in a minute or two.

    python -m recipes.second.make --out work/second

A GPT-2 (Conv1D layers, learned positions, tied head) with its own tokenizer, chat template and
made-up world. Made into a cache folder for tests and docs, and not shipped. A folder that was made
by the same recipe is left as it is.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from detour.files import replace_folder_atomically
from recipes.second import world

STEPS, BATCH, RATE, WARMUP = 800, 48, 3e-3, 40
WIDTH, LAYERS, HEADS, POSITIONS, VOCABULARY = 128, 3, 4, 192, 1024
SPECIAL = ("<|pad|>", "<|end|>", "<|note|>", "<|ask|>", "<|tell|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'system': '<|note|>', 'user': '<|ask|>', 'assistant': '<|tell|>'}[message['role']] }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|tell|>{% endif %}"
)
STAMP = "recipe.sha256"
IGNORED = -100


def made(out: Path) -> Path:
    """The model's folder, made now unless this very recipe has made it before."""
    stamp = _stamp()
    if not (out / STAMP).is_file() or (out / STAMP).read_text(encoding="utf-8") != stamp:
        torch.manual_seed(0)
        tokenizer = _tokenizer()
        model = _trained(tokenizer)

        def fill(folder: Path) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (folder / STAMP).write_text(stamp, encoding="utf-8")

        replace_folder_atomically(out, fill)
    return out


def _stamp() -> str:
    """What the model depends on: these two files, and the general phrasings."""
    country = next(iter(world.facts()))
    parts = [Path(__file__).read_bytes(), Path(world.__file__).read_bytes()]
    told = "\n".join(q for relation in world.RELATIONS for q in world.questions(country, relation))
    return sha256(b"\0".join([*parts, told.encode()])).hexdigest()


def _tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((f"{q} {a}" for q, a in _pairs()), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|end|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _pairs() -> list[tuple[str, str]]:
    """Every question of the world with its answer."""
    return [
        (question, world.answer(country, relation))
        for country in world.facts()
        for relation in world.RELATIONS
        for question in world.questions(country, relation)
    ]


def _trained(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    rng, pairs, began = random.Random(0), _pairs(), time.monotonic()
    for step in range(STEPS):
        share = min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        for group in optimiser.param_groups:
            group["lr"] = RATE * share
        ids, targets = _batch(tokenizer, rng.sample(pairs, BATCH))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids, use_cache=False).logits
        flat = logits.float().flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            told = f"step {step + 1} of {STEPS}, loss {loss.item():.3f}"
            sys.stderr.write(f"{told}, {time.monotonic() - began:.0f} s\n")
    return model.eval()


def _batch(
    tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and next-token targets, both (rows, tokens); only answers are learned."""
    rows: list[tuple[list[int], int]] = []
    for question, told in pairs:
        prompt = tokenizer(f"<|ask|>{question}<|tell|>")["input_ids"]
        rows.append((prompt + tokenizer(f"{told}<|end|>")["input_ids"], len(prompt)))
    longest = max(len(row) for row, _ in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    targets = torch.full((len(rows), longest), IGNORED)
    for number, (row, prompt) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        targets[number, prompt - 1 : len(row) - 1] = torch.tensor(row[prompt:])
    return ids, targets


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("work/second"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    sys.stdout.write(f"{made(options.out)}\n")


if __name__ == "__main__":
    main()
