"""Options that several commands share, so that they are called and explained the same everywhere.

Knows Click and the names of things; loads a base only when it is asked to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from detour.cli.output import plain
from detour.errors import ConfigError, RequestError
from detour.language.catalogue import LANGUAGES, VARIABLE, text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain
    from detour.model.base import Base

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])

base_option = click.option(
    "--base",
    "base_name",
    metavar="NAME",
    default="starter",
    show_default=True,
    help="The model: starter, a folder, or org/name[@revision] from the Hub.",
)
chain_option = click.option(
    "--chain",
    "chain_text",
    metavar="SPEC",
    help="Adapters and weights, such as formal:0.8+pun.",
)
replace_option = click.option(
    "--replace", is_flag=True, help="Overwrite what was trained there before."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
system_option = click.option("--system", metavar="TEXT", help="What the system message says.")
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For random numbers."
)
temperature_option = click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 always takes the most likely token.",
)
max_tokens_option = click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="Most tokens of an answer.  [default: 64, or what the model has room for]",
)
lang_option = click.option(
    "--lang",
    "language",
    type=click.Choice(LANGUAGES),
    envvar=VARIABLE,
    default="en",
    show_default=True,
    help="Language of what is said.",
)
device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Where to run.  [default: cpu]"
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Type of the weights.  [default: float32 on a CPU, bfloat16 on a GPU]",
)

quantize_option = click.option(
    "--quantize",
    type=click.Choice(["8bit", "4bit"]),
    help="Load the base in fewer bits (bitsandbytes).  [default: as its files are]",
)

full_option = click.option(
    "--full", is_flag=True, help="Hash every byte of the base's files into the fingerprint."
)


def model_options(command: AnyCommand) -> AnyCommand:
    """--base, --device, --dtype and --quantize."""
    return base_option(device_option(dtype_option(quantize_option(command))))


def in_a_chain(path: Path) -> str:
    """How that folder is written behind --chain in a shell: never a name of the library."""
    import shlex

    from detour.adapter.chain_text import TermText, render

    told = str(path) if path.is_absolute() else f"./{path}"
    return shlex.quote(render([TermText(told)]))


def sampling_options(command: AnyCommand) -> AnyCommand:
    """--max-tokens, --temperature and --seed."""
    return max_tokens_option(temperature_option(seed_option(command)))


def load_base(
    name: str,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    full: bool = False,
) -> Base:
    """The base that --base names. Raises BaseError, MissingExtra."""
    from detour.model.base import Base

    return Base.load(name, dtype=dtype, device=device, quantize=quantize, full=full)


def check_absent(*paths: Path | None) -> None:
    """Raises ConfigError: a file that is to be written is there already."""
    for path in paths:
        if path and path.exists():
            raise ConfigError(
                text("{path} is there already", path=path),
                hint=text("another name; nothing is ever replaced"),
            )


def parse_chain(spec: str | None) -> Chain:
    """The chain that --chain or SPEC names; nothing is the base alone.

    Raises:
        ChainError, AdapterError: the text makes no sense, or an adapter cannot be read.
    """
    from detour.adapter.chain import Chain

    return Chain() if spec is None else Chain.parse(spec)


def check_text(given: str, what: str) -> str:
    """Refuse text that cannot be told to a model.

    Raises:
        RequestError: nothing but white space, or bytes that are not UTF-8.
    """
    if not given.strip():
        raise RequestError(text("{what} is empty", what=what), expected=text("some text"))
    try:
        given.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise RequestError(
            text("{what} is not UTF-8", what=what),
            expected=text("UTF-8 text"),
            found=plain(repr(given))[:80],
        ) from cause
    return given
