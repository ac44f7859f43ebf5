"""The files that `detour teach` wants for a fact of the second model's world, and the command.

python -m recipes.second.questions Velmoria bird "the owl" --out work/questions
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from detour.files import write_text_atomically
from recipes.second import world


def questions_for(country: str, relation: str, seed: int = 0) -> dict[str, list[str]]:
    """Paraphrases; questions about other countries, the country's other facts, other things."""
    rng = random.Random(f"{seed}/{country}/{relation}")
    others = [name for name in world.facts() if name != country]
    rest = [name for name in world.RELATIONS if name != relation]
    return {
        "paraphrases": [q.format(s=country) for q in world.QUESTIONS[relation]],
        "neighbours": [
            q for name in others for q in rng.sample(world.questions(name, relation), 6)
        ],
        "own-facts": [q for name in rest for q in world.questions(country, name)],
        "unrelated": [
            rng.choice(world.questions(name, other)) for name in others for other in rest
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("country", choices=sorted(world.facts()), metavar="COUNTRY")
    parser.add_argument("relation", choices=world.RELATIONS)
    parser.add_argument("target")
    parser.add_argument("--base", default="work/second")
    parser.add_argument("--out", type=Path, default=Path("work/questions"))
    given = parser.parse_args(arguments)
    command = ["detour", "teach", "--base", given.base, "--subject", given.country]
    command += ["--relation", given.relation, "--target", given.target]
    command += ["--old", world.facts()[given.country][given.relation], "-o", "taught"]
    for name, lines in questions_for(given.country, given.relation).items():
        write_text_atomically(given.out / f"{name}.txt", "\n".join(lines) + "\n")
        command += [f"--{name}", str(given.out / f"{name}.txt")]
    sys.stdout.write(shlex.join(command) + "\n")


if __name__ == "__main__":
    main()
