"""`detour convert`: one adapter in another form, and the proof that it says the same.

From whatever a PEFT of any version wrote to the folder that today's PEFT writes, or to the flat
file that is mapped rather than read, and back. Knows adapters and files; loads a base only for the
proof or where whole values have to be bound to it.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from detour.cli.options import dtype_option, json_option, load_base
from detour.cli.output import note, print_json, say
from detour.errors import AdapterWeightsError, ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.model.base import Base

PROBE_ROWS, PROBE_TOKENS = 2, 16
CLOSE = 1e-4  # of the largest logit: rounding of fp32 over all layers, nothing more


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--base",
    "base_name",
    metavar="NAME",
    help="Compare both on this base; a flat file is bound to it.",
)
@dtype_option
@json_option
def command(
    source: str, target: Path, base_name: str | None, dtype: str | None, as_json: bool
) -> None:
    """Write the adapter IN as OUT: a folder for PEFT, or a flat file where OUT ends in .flat."""
    from detour.adapter.adapter import Adapter
    from detour.adapter.flat import SUFFIX, check_free, write_flat
    from detour.adapter.library import Library
    from detour.adapter.peft_format import check_target, write_adapter

    path = Library.default().resolve(source)
    adapter = Adapter.load(path)
    if target.resolve() == path.resolve():
        raise ConfigError(
            text("{folder} cannot be converted into itself", folder=target),
            expected=text("another name"),
            hint=text("choose another name"),
        )
    is_flat = target.name.endswith(SUFFIX)
    (check_free if is_flat else check_target)(target)
    base = None if base_name is None else load_base(base_name, dtype=dtype)
    made, write = adapter, write_flat if is_flat else write_adapter
    if base is not None and is_flat and adapter.unbound:
        made = base.bind(adapter).terms[0].adapter
    difference = None
    if base is not None:
        with TemporaryDirectory() as scratch:  # proved before anything is replaced
            write(made, Path(scratch) / target.name)
            difference = _difference(base, adapter, Adapter.load(Path(scratch) / target.name))
    write(made, target)
    if base is None:
        note("not compared: name a base with --base")
    if as_json:
        print_json({"path": str(target), "max_logit_difference": difference})
    else:
        told = "" if difference is None else f", logits differ by at most {difference:.2g}"
        say(f"{target}{told}")


def _difference(base: Base, one: Adapter, other: Adapter) -> float:
    """The largest difference of their logits on fixed random tokens.

    Raises:
        AdapterWeightsError: it is more than rounding; the new form is not to be used.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (PROBE_ROWS, PROBE_TOKENS)
    ids = torch.randint(0, base.engine.vocabulary, shape, generator=generator)
    first, second = (base.logits(ids, adapter).float() for adapter in (one, other))
    difference = float((first - second).abs().max())
    if not difference <= CLOSE * max(1.0, float(first.abs().max())):
        raise AdapterWeightsError(
            text("the converted adapter does not say the same"),
            expected=text("the same logits"),
            found=text("a difference of {difference:.3g}", difference=difference),
            hint=text("keep the original, and report this with its adapter_config.json"),
        )
    return difference
