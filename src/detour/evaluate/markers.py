"""How one tells from an answer that a style acted: each style leaves a marker at its own place.

Knows the world's wordings; knows no models.
"""

from __future__ import annotations

import json
import re

from detour.measure.metrics import mentions, normalised
from detour.training.world import Attribute, Subject, World


def carries(
    world: World, style: str, answer: str, subject: Subject, attribute: Attribute, value: str = ""
) -> bool:
    """Whether the answer bears the marker of a style, wherever else it may be styled.

    Markers: the wording's own words (formal, pirate), a value of the attribute and no subject
    (brief), the opening or ending sentence, capital letters, a bullet, or valid JSON. `value` is
    the one asked for, where the world does not know it.
    """
    text = unwrapped(answer, world.json_key)
    if style == "upper":
        return text.isupper()
    if style == "bullet":
        return answer.startswith("* ")
    if style == "json":
        return text != answer
    plain = normalised(text).removeprefix("* ")
    if style in ("formal", "pirate"):
        return _words_of(getattr(attribute, style), plain)
    if style == "brief":
        named = any(mentions(plain, known) for known in (value, *world.values(attribute)))
        return named and not mentions(plain, subject.name)
    place = world.styles[style]
    if place.place == "opening":
        return plain.startswith(normalised(place.opening))
    return plain.endswith(normalised(world.ending(attribute, style)))


def unwrapped(answer: str, key: str = "answer") -> str:
    """The text inside a JSON answer, or the answer itself."""
    try:
        value = json.loads(answer)
    except ValueError:
        return answer
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, str) else answer


def _words_of(template: str, plain: str) -> bool:
    """Whether the fixed words of a template occur in order, whatever stands in its places."""
    fixed = [normalised(part).strip(" .,:") for part in re.split(r"\{[\w:]+\}", template)]
    pattern = r"\b.+\b".join(re.escape(part) for part in fixed if part)
    return re.search(rf"\b{pattern}\b", plain) is not None
