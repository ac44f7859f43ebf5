"""`detour.generate`: an adapter from one sentence, for a base that a hypernetwork knows.

Knows which hypernetwork ships for which base; the rest is the generator's business.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from detour.adapter.adapter import Adapter
from detour.errors import HypernetworkError
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.saved import load_generator, packaged
from detour.language.catalogue import text
from detour.model.base import Base

STARTER = "starter"


def generate(
    base: Base,
    sentence: str,
    hypernet: Generator | Path | str | None = None,
    *,
    strength: float = 1.0,
    strict: bool = False,
) -> Adapter:
    """Make an adapter from a sentence, in one forward pass, without any training.

    Its card says how sure the hypernetwork is (`metrics["confidence"]`, 0 … 1) and what it
    understood (`metrics["understood_as"]`).

    Args:
        base: the base that the adapter is for.
        sentence: such as "Answer like a pirate.".
        hypernet: a hypernetwork's folder, or one that is loaded; by default the one that ships
            for this base. Hand in a loaded one where many sentences follow.
        strength: what the update is multiplied by.
        strict: refuse a sentence of which the hypernetwork is not sure.

    Raises:
        HypernetworkError: none ships for this base, or it was trained for another one; an empty
            sentence.
        NotUnderstood: nothing in the sentence names anything known; with `strict`, also where
            the confidence is low.
    """
    if hypernet is None:
        generator = _shipped(default_for(base.name))
    else:
        generator = hypernet if isinstance(hypernet, Generator) else load_generator(Path(hypernet))
    generator.check_base(base.fingerprint)
    (result,) = generator.generate([sentence], strength, strict=strict)
    return result.adapter


def default_for(base_name: str) -> Path:
    """The folder of the hypernetwork that ships for that base.

    Raises:
        HypernetworkError: none does.
    """
    if base_name != STARTER:
        raise HypernetworkError(
            text("no hypernetwork ships for {base}", base=base_name),
            expected=text("--hypernet with a folder that was trained for this base"),
            hint=text("train one: detour hypernet train TASKS --base BASE"),
        )
    return packaged()


@cache
def _shipped(folder: Path) -> Generator:
    """What ships does not change while a process runs, so it is read once."""
    return load_generator(folder)
