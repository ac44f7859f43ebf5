"""Decoding with many adapters: Detour against PEFT's ways, in one run and in turn.

    python benchmarks/decode/against_peft.py --shape tiny
    python benchmarks/decode/against_peft.py --shape 0.6b --rows 8 --adapters 8 --pairs 3 \
        --without "PEFT mixed, strided head"
    python benchmarks/decode/against_peft.py --shape 0.6b --rows 8 --adapters 8 --pairs 2 \
        --new 2 --only strided

Greedy, random weights, prompts of 32 tokens, one thread. `mixed` is PEFT's `adapter_names`, as
`generate` runs it (a bf16 head on the last token's slice of a longer row takes half a minute on a
CPU) and with that mended; `one after another` sets one adapter, runs its rows, sets the next;
`merged` merges each into the weights and takes it out again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from models import SHAPES, Bench, made

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interleaved import Ratio, Way, compare, process_time

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.flat import write_flat
from detour.decoding.request import Request, Sampling
from detour.slots.chained import contents_for_chain

PROMPT = 32


class Work:
    """One batch of rows to decode, and the ways to do it."""

    def __init__(self, bench: Bench, rows: int, new: int) -> None:
        self.bench, self.rows, self.new = bench, rows, new
        generator = torch.Generator().manual_seed(2)
        self.ids = torch.randint(1, bench.shape.vocabulary, (rows, PROMPT), generator=generator)
        self.owner = [row % len(bench.names) for row in range(rows)]

    def ours(
        self, chains: list[Chain | None], new: int | None = None, prompt: int = PROMPT
    ) -> object:
        """Every row its own chain, in one batch."""
        ids = self.ids[:, :prompt].tolist()
        sampling = Sampling(max_new_tokens=new or self.new)
        requests = [
            Request(str(n), tuple(mine), chain, sampling)
            for n, (mine, chain) in enumerate(zip(ids, chains, strict=True))
        ]
        return self.bench.base.engine.generate(requests)

    def steps_only(self, chains: list[Chain | None]) -> float:
        """Seconds of decoding after the first token of a short prompt, chains being in place."""
        whole = process_time(lambda: self.ours(chains, self.new + 1, 4))
        return whole - process_time(lambda: self.ours(chains, 1, 4))

    def alone(self) -> list[Chain | None]:
        """Row by row the chain of its one adapter."""
        whole = {n: Chain.of(self.bench.adapters[n]) for n in set(self.owner)}
        return [whole[n] for n in self.owner]

    def triples(self) -> list[Chain | None]:
        """Row by row a weighted chain of three."""
        found = self.bench.adapters
        parts = [[found[(n + k) % len(found)] for k in range(3)] for n in self.owner]
        return [0.5 * a + 0.3 * b - 0.2 * c for a, b, c in parts]

    def generate(self, ids: torch.Tensor, **more: object) -> object:
        """PEFT's generate on these rows."""
        with torch.inference_mode():
            return self.bench.peft.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=self.new,
                do_sample=False, **more,
            )  # fmt: skip

    def mixed(self) -> object:
        """PEFT's mixed batch."""
        return self.generate(self.ids, adapter_names=[self.bench.names[n] for n in self.owner])

    def in_turn(self) -> None:
        """One adapter after another, each with all of its rows."""
        for number, name in enumerate(self.bench.names):
            mine = [row for row, owner in enumerate(self.owner) if owner == number]
            if mine:
                self.bench.peft.set_adapter(name)
                self.generate(self.ids[mine])

    def merged(self) -> None:
        """The same, merged into the weights and taken out again."""
        for number, name in enumerate(self.bench.names):
            mine = [row for row, owner in enumerate(self.owner) if owner == number]
            if mine:
                self.bench.peft.merge_adapter([name])
                self.generate(self.ids[mine])
                self.bench.peft.unmerge_adapter()

    def triples_in_turn(self) -> None:
        """A weighted adapter of three for every row, made, run and thrown away."""
        names = self.bench.names
        for row, n in enumerate(self.owner):
            three = [names[(n + k) % len(names)] for k in range(3)]
            self.bench.peft.add_weighted_adapter(
                three, [0.5, 0.3, 0.2], "chain", combination_type="cat"
            )
            self.bench.peft.set_adapter("chain")
            self.generate(self.ids[row : row + 1])
            self.bench.peft.delete_adapter("chain")


@contextmanager
def contiguous_head(bench: Bench) -> Generator[None]:
    """PEFT's model without the fault of the strided head."""
    head = bench.peft.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: tuple(x.contiguous() for x in given))
    try:
        yield
    finally:
        hook.remove()


def comparisons(bench: Bench, rows: int, new: int, pairs: int) -> dict[str, Callable[[], Ratio]]:
    """Every comparison by name: ours and the peer; the base is the peer of an overhead."""
    work = Work(bench, rows, new)
    alone, triples = work.alone(), work.triples()
    nothing: list[Chain | None] = [None] * rows

    def mended() -> None:
        with contiguous_head(bench):
            work.mixed()

    def against(theirs: Way, chains: list[Chain | None] = alone) -> Callable[[], Ratio]:
        return lambda: compare(lambda: work.ours(chains), theirs, pairs)

    def overhead(chains: list[Chain | None]) -> Callable[[], Ratio]:
        return lambda: compare(lambda: work.ours(nothing), lambda: work.ours(chains), pairs)

    def of_steps(chains: list[Chain | None]) -> Callable[[], Ratio]:
        return lambda: compare(nothing, chains, pairs, work.steps_only)

    acting = {
        "one adapter": [alone[0]] * rows,
        "a chain of three": [triples[0]] * rows,
        "each row its own": alone,
    }
    return {
        "PEFT mixed": against(mended),
        "PEFT mixed, strided head": against(work.mixed),
        "PEFT one after another": against(work.in_turn),
        "PEFT merged, one after another": against(work.merged),
        "PEFT chains of three, one after another": against(work.triples_in_turn, triples),
        **{f"overhead, prompt included: {name}": overhead(c) for name, c in acting.items()},
        **{f"overhead of decoding: {name}": of_steps(c) for name, c in acting.items()},
        "load and activate": lambda: compare(*loading(bench), pairs),
    }


def loading(bench: Bench) -> tuple[Way, Way]:
    """One adapter from the disk into the model, ours from a flat file, and out again."""
    flat = bench.folder / "a0.flat"
    write_flat(bench.adapters[0], flat)
    base = bench.base

    def ours() -> None:
        chain = base.bind(Adapter.load(flat))
        with base.hold(contents_for_chain(chain, torch.float32, base.device)):
            pass

    def theirs() -> None:
        bench.peft.load_adapter(str(bench.folder / "a0"), "again")
        bench.peft.set_adapter("again")
        bench.peft.set_adapter("a0")
        bench.peft.delete_adapter("again")

    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the comparisons' names")
    parser.add_argument("--without", nargs="*", default=[], help="comparisons to leave out")
    parser.add_argument("--out", type=Path, help="JSON lines, one a comparison, are added to it")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    bench = made(SHAPES[given.shape], given.adapters)
    told = f"{given.shape}, {given.rows} rows, {given.adapters} adapters, {given.new} new tokens"
    sys.stdout.write(f"{told}, {given.threads} thread(s)\n")
    try:
        of = comparisons(bench, given.rows, given.new, given.pairs)
        for name, measure in of.items():
            if not any(part in name for part in given.only) or name in given.without:
                continue
            ratio = measure()
            sys.stdout.write(f"  {name}: {ratio}\n")
            sys.stdout.flush()
            if given.out:
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"run": told, "name": name, **vars(ratio)}) + "\n")
    finally:
        shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
