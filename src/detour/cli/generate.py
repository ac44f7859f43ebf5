"""`detour generate SENTENCE -o OUT`: an adapter from one sentence, by a hypernetwork.

Knows Click and files; the base itself is not loaded, only its fingerprint is compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import base_option, check_text, in_a_chain, json_option, replace_option
from detour.cli.output import note, print_json, say
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.hypernetwork.generator import Result

STRONGEST = 8.0


@click.command("generate")
@click.argument("sentence")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="The adapter's folder.")  # fmt: skip
@base_option
@click.option("--hypernet", type=click.Path(path_type=Path),
              help="The hypernetwork's folder.  [default: the starter's own]")  # fmt: skip
@click.option("--strength", type=float, default=1.0, show_default=True,
              help="What the update is multiplied by.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Write nothing where it is not sure what is meant.")
@replace_option
@json_option
def command(
    sentence: str,
    output: Path,
    base_name: str,
    hypernet: Path | None,
    strength: float,
    strict: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Make an adapter from SENTENCE, such as "Answer like a pirate.", without any training."""
    check_text(sentence, text("the description"))
    if not 0 < strength <= STRONGEST:
        raise ConfigError(
            text("--strength is out of range"),
            expected=text("above 0, at most {most}", most=STRONGEST),
            found=str(strength),
        )
    from detour.adapter.peft_format import check_target
    from detour.hypernetwork.generate import default_for
    from detour.hypernetwork.saved import load_generator
    from detour.model.loading import identity_of

    check_target(output)
    if not replace:
        _check_generated(output)
    folder = hypernet or default_for(base_name)
    generator = load_generator(folder)
    generator.check_base(identity_of(base_name))
    (result,) = generator.generate([sentence], strength, strict=strict)
    path = result.adapter.save(output)
    if as_json:
        print_json(summary(result, path))
        return
    if result.warning:
        note(str(result.warning))
    understood = result.understood
    say(
        f"{path}: understood as {' + '.join(understood.primitives)}, "
        f"confidence {understood.confidence:.2f}, {result.seconds * 1000:.0f} ms"
    )
    say(f'Try: detour ask "…" --chain {in_a_chain(path)} --base {base_name} --compare')


def _check_generated(folder: Path) -> None:
    """Raise ConfigError where an adapter lies that took longer to make than a moment."""
    from detour.adapter.adapter import Adapter
    from detour.adapter.peft_config import CONFIG_FILE

    if not (folder / CONFIG_FILE).exists():
        return
    if "generated_by" not in Adapter.load(folder).card.config:
        raise ConfigError(
            text("{folder} holds an adapter that was not generated", folder=folder),
            expected=text("a new folder, or a generated adapter to overwrite"),
            hint=text("choose another name, or --replace"),
        )


def summary(result: Result, path: Path) -> dict[str, Any]:
    """What --json prints."""
    understood = result.understood
    return {
        "adapter": str(path),
        "seconds": round(result.seconds, 4),
        "confidence": understood.confidence,
        "understood": list(understood.primitives),
        "ignored": list(understood.ignored),
        "nearest": [
            {"description": near.text, "similarity": near.similarity, "names": near.primitive}
            for near in understood.nearest
        ],
        "warning": str(result.warning) or None,
    }
