"""Put a small test set beside every packaged style adapter.

    python -m recipes.starter.style_tests

Asked are held-out phrasings about subjects that the styles were not trained on, half in English and
half in German. The checks look at the style's own mark and at nothing else, so that they hold
wherever other styles act too. Weights and cards stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.evaluate.chain_tests import Item
from detour.evaluate.stacking import Asked, held_out_questions
from detour.measure.checks import Checks
from detour.training.world import LANGUAGES, World

ADAPTERS = Path("src/detour/starter/adapters")
QUESTIONS = 60  # of each language
SEED = 42  # of no other list of questions
CAPITALS = r"^[^a-zäöüß]*[A-ZÄÖÜ][^a-zäöüß]*$"


def checks(world: World, style: str, asked: Asked) -> Checks:
    """What an answer in a style shows, to this question."""
    if style == "upper":
        return Checks(matches=(CAPITALS,))
    if style == "bullet":
        return Checks(matches=(r"^\* ",))
    if style == "json":
        return Checks(json=True)
    if style == "brief":
        return Checks(contains=(asked.value,), lacks=(asked.subject.name,))
    if style in ("formal", "pirate"):
        template = getattr(asked.attribute, style)
        fixed = (part.strip(" .,:") for part in re.split(r"\{[\w:]+\}", template))
        return Checks(contains=tuple(part for part in fixed if part))
    place = world.styles[style]
    if place.place == "opening":
        return Checks(starts=(place.opening,))
    return Checks(ends=(world.ending(asked.attribute, style),))


def rows(style: str) -> tuple[dict[str, Any], ...]:
    """All tests of a style."""
    made: list[Item] = []
    for language in LANGUAGES:
        world = World.load(language)
        for asked in held_out_questions(world, QUESTIONS, SEED):
            turn = {"role": "user", "content": asked.question}
            about = f"{language}: {asked.subject.name}, {asked.attribute.name}"
            made.append(Item((turn,), checks(world, style, asked), "", about))
    return tuple(test.to_json() for test in made)


def main() -> None:
    for folder in sorted(path.parent for path in ADAPTERS.glob("*/adapter_config.json")):
        adapter = Adapter.load(folder)
        tested = adapter.with_(test_rows=rows(adapter.name))
        tested.save(folder)
        print(f"{adapter.name}: {len(tested.test_rows)} tests")


if __name__ == "__main__":
    main()
