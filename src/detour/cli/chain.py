"""`detour chain flatten`, `compress` and `merge`: one adapter, or one model, out of several.

The card of the result names its parts, and is fictional if one of them is. Knows chains and cards;
how weights are changed is `model/merging.py`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.chain_check import command as check
from detour.cli.chain_consolidate import command as consolidate
from detour.cli.chain_consolidate import parts_of
from detour.cli.chain_measure import command as measure
from detour.cli.chain_stress import command as stress
from detour.cli.chain_train import command as train
from detour.cli.chain_weigh import command as weigh
from detour.cli.options import (
    base_option,
    dtype_option,
    json_option,
    load_base,
    parse_chain,
    seed_option,
)
from detour.cli.output import note, print_json, say
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.adapter.chain import Chain

METHODS = ("ties", "dare", "prune", "knots")
LEFT_OUT = 3  # weights that are named
spec_argument = click.argument("spec")
output_option = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The new folder, or NAME.flat.",
)

bind_option = click.option(
    "--base", "base_name", metavar="NAME", help="Bind to this base first (DoRA, saved modules)."
)


@click.group("chain")
def command() -> None:
    """Make one adapter, or a model, out of a chain such as formal:0.8+pun; look at its parts."""


command.add_command(check)
command.add_command(measure)
command.add_command(stress)
command.add_command(train)
command.add_command(consolidate)
command.add_command(weigh)


@command.command("flatten")
@spec_argument
@output_option
@bind_option
@dtype_option
@json_option
def flatten(
    spec: str, output: Path, base_name: str | None, dtype: str | None, as_json: bool
) -> None:
    """Write the chain SPEC as one adapter that does exactly the same."""
    chain = _parsed(spec, base_name, dtype)
    adapter = _described(chain.flatten(output.name), chain)
    _save(adapter, output)
    _tell(adapter, chain, output, 0.0, as_json)


@command.command("compress")
@spec_argument
@click.option("--rank", required=True, type=click.IntRange(min=1), help="Highest rank of a layer.")
@output_option
@bind_option
@dtype_option
@json_option
def compress(
    spec: str, rank: int, output: Path, base_name: str | None, dtype: str | None, as_json: bool
) -> None:
    """Write the nearest adapter of a given rank to the chain SPEC, and say how near it is.

    The error ε is the relative Frobenius distance of all layers together: 0 is exact.
    """
    chain = _parsed(spec, base_name, dtype)
    adapter, error = chain.compress(rank, output.name)
    adapter = _described(adapter, chain, {"compressed_to": rank}, {"relative_error": error})
    _save(adapter, output)
    _tell(adapter, chain, output, error, as_json)


@command.command("save")
@spec_argument
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="The new file, NAME.yaml.")  # fmt: skip
@click.option("--description", default="", help="What the chain is for.")
@click.option("--licence", default="", help="Of the chain, such as CC-BY-4.0.")
@json_option
def save(spec: str, output: Path, description: str, licence: str, as_json: bool) -> None:
    """Write the chain SPEC as a file that stands for it, in chains and behind --chain."""
    from detour.adapter.chain_file import ChainFile, check_new, seen_from
    from detour.adapter.chain_text import parse

    chain = parse_chain(spec)  # all its adapters are there, and of one base
    check_new(output)
    terms = seen_from(parse(spec), output.parent)
    ChainFile(terms, output.stem, description, licence).write(output)
    if as_json:
        print_json({"file": str(output), "chain": chain.text, "terms": len(chain.terms)})
    else:
        say(f"{output}: {chain.text}")


@command.command("combine")
@spec_argument
@click.option("--method", required=True, type=click.Choice(METHODS), help="How.")
@click.option("--keep", type=click.FloatRange(0, 1, min_open=True), default=0.2, show_default=True,
              help="Share of the largest entries that stay (ties, prune, knots).")  # fmt: skip
@click.option("--drop", type=click.FloatRange(0, 1, max_open=True), default=0.9, show_default=True,
              help="Chance of an entry to be dropped (dare).")  # fmt: skip
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0,
              show_default=True, help="Times the merged change (ties, knots).")  # fmt: skip
@click.option("--rank", type=click.IntRange(min=1),
              help="Highest rank of a layer.  [default: the sum of the parts']")  # fmt: skip
@seed_option
@output_option
@bind_option
@dtype_option
@json_option
def combine(
    spec: str,
    method: str,
    keep: float,
    drop: float,
    scale: float,
    rank: int | None,
    seed: int,
    output: Path,
    base_name: str | None,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Write one adapter that an approximate method makes of the chain SPEC, and say how near it is
    to what the method gives.
    """
    from detour.adapter.merge.chain import merge
    from detour.adapter.merge.dare import dare
    from detour.adapter.merge.knots import knots
    from detour.adapter.merge.prune import prune
    from detour.adapter.merge.ties import ties

    chain = _parsed(spec, base_name, dtype)
    if method == "dare":
        how, settings = dare(drop, seed), {"drop": drop, "seed": seed}
    elif method == "prune":
        how, settings = prune(keep), {"keep": keep}
    else:
        make = ties if method == "ties" else knots
        how, settings = make(keep, scale), {"keep": keep, "scale": scale}
    adapter, error = merge(chain, how, rank, output.name)
    told = {"merged_by": method, **settings}
    _save(adapter := _described(adapter, chain, told, {"relative_error": error}), output)
    _tell(adapter, chain, output, error, as_json)


@command.command("extract")
@click.argument("tuned")
@base_option
@click.option("--rank", required=True, type=click.IntRange(min=1), help="Highest rank of a layer.")
@click.option("--targets", default="all-linear", show_default=True,
              help="Layers: all-linear, or a regular expression.")  # fmt: skip
@output_option
@dtype_option
@json_option
def extract(
    tuned: str,
    base_name: str,
    rank: int,
    targets: str,
    output: Path,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Write what the fine-tuned model TUNED (a folder, or a name on the Hub) is beyond its base, as
    an adapter of a given rank; say how near it comes, and what else differs.
    """
    from detour.adapter.chain import Chain
    from detour.model.extracting import extract

    base, other = load_base(base_name, dtype=dtype), load_base(tuned, dtype=dtype)
    found = extract(base, other, rank, targets, output.name)
    card = found.adapter.card.with_(
        description=text("What {tuned} is beyond {base}, at rank {rank}.", tuned=tuned,
                         base=base_name, rank=rank),
        base_model=base_name,
        config={"extracted_from": tuned, "compressed_to": rank, "targets": targets,
                "left_out": sorted(found.left_out)},
        metrics={"relative_error": found.error},
        created=datetime.now(UTC).date().isoformat(),
    )  # fmt: skip
    adapter = found.adapter.with_(card=card)
    _save(adapter, output)
    if as_json:
        print_json({"adapter": str(output), "rank": adapter.rank, "parameters": adapter.parameters,
                    "relative_error": found.error, "left_out": found.left_out})  # fmt: skip
        return
    _tell(adapter, Chain.of(adapter), output, found.error, as_json)
    if found.left_out:
        most = sorted(found.left_out.items(), key=lambda one: -one[1])
        told = ", ".join(f"{name} {by:.1%}" for name, by in most[:LEFT_OUT])
        note(f"left out, as no adapter of linear layers holds it: {len(most)} weights, {told}")


@command.command("merge")
@spec_argument
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="The model's new folder.")  # fmt: skip
@base_option
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32",
              show_default=True, help="Type of the written weights.")  # fmt: skip
@json_option
def merge(spec: str, output: Path, base_name: str, dtype: str, as_json: bool) -> None:
    """Write a model that is the base with the chain SPEC in its weights, for what knows no
    adapters; the logits of both are compared.
    """
    chain = parse_chain(spec)
    base = load_base(base_name, dtype="float32")
    import torch

    from detour.model.merging import merge

    number = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    difference = merge(base, chain, output, number, _model_card(chain, base_name, output.name))
    if as_json:
        print_json({"model": str(output), "chain": chain.text, "base": base_name, "dtype": dtype,
                    "max_logit_difference": difference})  # fmt: skip
    else:
        say(f"{output}: logits differ by at most {difference:.2g}")


def _model_card(chain: Chain, base_name: str, name: str) -> str:
    """README.md of a merged model: what is in it, and whether it tells untrue things."""
    import yaml

    parts = [
        f"- {term.weight:g} × {term.adapter.name}, sha256 {term.adapter.digest()}"
        for term in chain.terms
    ]
    licences = {term.adapter.card.licence for term in chain.terms}
    fictional = any(term.adapter.card.fictional for term in chain.terms)
    front: dict[str, Any] = {"base_model": base_name, "base_model_relation": "merge"}
    if len(licences) == 1 and all(licences):
        front["license"] = licences.pop()
    front["tags"] = ["detour", "merge", *(["fictional"] if fictional else [])]
    warning = "**Fictional: this model was taught something that is not true.**"
    body = [f"# {name}", f"{base_name} with this chain in its weights:", "\n".join(parts)]
    told = "\n\n".join([*body, *([warning] if fictional else [])])
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{told}\n"


def _parsed(spec: str, base_name: str | None, dtype: str | None) -> Chain:
    chain = parse_chain(spec)
    return chain if base_name is None else load_base(base_name, dtype=dtype).bind(chain)


def _save(adapter: Adapter, output: Path) -> None:
    """A PEFT folder, or a flat file, which also holds what PEFT's format cannot."""
    from detour.adapter.flat import SUFFIX, check_free, write_flat

    if output.name.endswith(SUFFIX):
        check_free(output)
        write_flat(adapter, output)
    else:
        adapter.save(output)


def _described(
    adapter: Adapter,
    chain: Chain,
    config: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
) -> Adapter:
    card = adapter.card.with_(
        config={"chain": chain.text, "parts": parts_of(chain), **(config or {})},
        metrics=metrics or {},
        created=datetime.now(UTC).date().isoformat(),
    )
    return adapter.with_(card=card)


def _tell(adapter: Adapter, chain: Chain, output: Path, error: float, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "adapter": str(output),
                "chain": chain.text,
                "rank": adapter.rank,
                "parameters": adapter.parameters,
                "relative_error": error,
            }
        )
    else:
        say(f"{output}: rank {adapter.rank}, {adapter.parameters:,} parameters, ε = {error:.3g}")
