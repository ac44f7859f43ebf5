"""One adapter of a chain trained anew, so that it gets on with the others: tried and measured.

On rows of its own it learns while the others act in the slots and stay as they are: once so, and
once with its inputs held orthogonal to theirs (O-LoRA, Wang et al. 2023, arXiv:2310.14152). On rows
that say which adapters act it learns in their company. What comes of it is judged as every other
remedy is, by what the old adapter does alone. Knows chains, rows and trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.data.reading import Loaded
from detour.errors import ConfigError
from detour.evaluate.chain_measure import ChainMeasure, without
from detour.evaluate.chain_remedies import Remedy, judgeable, judged
from detour.evaluate.trials import Trials
from detour.language.catalogue import Text, text
from detour.training.company import Company, learn_in_company
from detour.training.config import TrainConfig, make_config
from detour.training.continual import ORTHOGONALITY
from detour.training.descend import Watcher
from detour.training.loop import train_with
from detour.training.together import Composed

REMEMBERED = ("steps", "batch_size", "learning_rate", "warmup", "seed", "up_rate", "rslora")
"""Settings of the first training that hold for the second one too."""
Teller = Callable[[str], None]


@dataclass(frozen=True)
class Anew:
    """What to train again.

    Attributes:
        place: in the chain.
        rows: of the adapter itself, as `train` takes them; or with the adapters that act on each.
        folder: where the new adapters go, each in one of its own.
        settings: that differ from those on the adapter's card.
    """

    place: int
    rows: Loaded | tuple[Composed, ...]
    folder: Path
    settings: Mapping[str, Any]


def retrained(
    found: ChainMeasure,
    trials: Trials,
    anew: Anew,
    *,
    watcher: Watcher | None = None,
    teller: Teller | None = None,
) -> list[Remedy]:
    """The ways of training one adapter again, each with what it gave; written to their folders.

    Nothing is trained where no R could be told.

    Raises:
        ConfigError: two adapters of the chain have one name, and the rows say by names who acts.
        As `train_with` and `learn_in_company`; StorageError: a folder cannot be written.
    """
    if not found.shares:
        return []
    old, base = found.chain.terms[anew.place].adapter, trials.base
    others = without(found.chain, anew.place)
    config = _config(old, anew.settings)
    how: dict[str, Any] = {"watcher": watcher, "teller": teller}
    made: list[tuple[Text, Adapter]] = []
    if isinstance(anew.rows, tuple):
        company = Company({term.adapter.name: term.adapter for term in others.terms})
        if len(company.adapters) < len(others.terms) or old.name in company.adapters:
            raise ConfigError(
                text("two adapters of {chain} have one name", chain=found.chain.text),
                hint=text("rows that say by names who acts need different ones"),
            )
        result = learn_in_company(base, anew.rows, old.name, config, company, **how)
        made.append((text("{name} trained anew in company", name=old.name), result.adapter))
    else:
        for told, ending, weight in (
            (text("{name} trained anew while the others act", name=old.name), "beside", 0.0),
            (text("{name} trained anew, orthogonal to the others", name=old.name), "orthogonal",
             ORTHOGONALITY),
        ):  # fmt: skip
            own = config.model_copy(update={"orthogonality": weight})
            result = train_with(base, anew.rows, own, name=f"{old.name}-{ending}",
                                beneath=others, **how)  # fmt: skip
            made.append((told, result.adapter))
    return [_judged(found, trials, anew, told, adapter) for told, adapter in made]


def _config(old: Adapter, settings: Mapping[str, Any]) -> TrainConfig:
    """As the adapter was trained, where its card says it; always of its rank, in its layers."""
    card = old.card.config
    remembered = {name: card[name] for name in REMEMBERED if card.get(name) is not None}
    shape = {"rank": old.rank, "alpha": card.get("alpha", 2.0 * old.rank),
             "targets": tuple(old.updates)}  # fmt: skip
    return make_config({**remembered, **shape, **settings})


def _judged(
    found: ChainMeasure, trials: Trials, anew: Anew, what: Text, adapter: Adapter
) -> Remedy:
    """The chain with the new adapter in the place of the old one, at its weight."""
    name = adapter.name if isinstance(anew.rows, Loaded) else f"{adapter.name}-company"
    path = anew.folder / name
    old = found.chain.terms[anew.place]
    whole = adapter.with_(
        name=name, test_rows=old.adapter.test_rows,
        card=adapter.card.with_(fictional=old.adapter.card.fictional),
    )  # fmt: skip
    whole.save(path)
    terms = list(found.chain.terms)
    terms[anew.place] = replace(old, adapter=whole.with_(name=_as_a_path(path)))
    return judged(found, trials, what, Chain(tuple(terms)), judgeable(found))


def _as_a_path(path: Path) -> str:
    told = path.as_posix()
    return told if path.is_absolute() or told.startswith(".") else f"./{told}"
