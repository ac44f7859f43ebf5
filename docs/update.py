"""Write the generated blocks of the documentation anew, or check that they are up to date.

    python docs/update.py            write
    python docs/update.py --check    write nothing; exit code 1 where a block is out of date

A block stands between `<!-- KIND -->` or `<!-- KIND:ARGUMENT -->` and `<!-- end -->`. It is made
from the code and the data that it tells of: help texts, signatures, settings, the starter's world,
recipe and card. Knows Markdown and where these things lie; knows nothing of what the pages say.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "src/detour/starter/weights/card.json"
RECIPE = ROOT / "recipes/starter"
READMES = ("README.md", "README.de.md")
WIDTH = 78  # columns of help in a terminal of 80
LINE = 88  # columns of a signature before it is broken
FIGURE = {"value", "low", "high", "n"}
GERMAN_VERBS = {
    "demo": "Ändert vor deinen Augen eine Tatsache und beweist es.",
    "ask": "Fragt ein Modell, mit oder ohne eine Kette von Adaptern.",
    "probe": "Fragt untrainierte Modelle, was sie von einer Änderung schon wissen.",
    "teach": "Ändert eine Tatsache und misst, was sich sonst geändert hat.",
    "collect": "Macht Zeilen aus Dokumenten, Code oder Rückmeldungen.",
    "check": "Sieht Daten an, bevor damit trainiert wird.",
    "estimate": "Sagt vorher, was ein Training brauchen und kosten würde.",
    "bench": "Misst an deinen Daten ein paar Trainingsschritte.",
    "train": "Trainiert einen Adapter mit deinen eigenen Gesprächen.",
    "tune": "Sucht Einstellungen für dein Training.",
    "evaluate": "Misst ein Modell und eine Kette an deinen Daten.",
    "report": "Beurteilt eine gelehrte Änderung mit allen Zahlen, die es gibt.",
    "generate": "Macht aus einem Satz einen Adapter.",
    "hypernet": "Trainiert Netze, die Adapter machen.",
    "chain": "Sieht eine Kette an oder macht einen einzigen Adapter daraus.",
    "list": "Listet die Adapter auf, die du mit Namen ansprechen kannst.",
    "inspect": "Zeigt, was in einem Adapter steckt.",
    "convert": "Schreibt einen Adapter in anderer Form.",
    "remove": "Löscht einen Adapter aus deiner Bibliothek.",
    "starter": "Zeigt, was das mitgelieferte Modell kann.",
    "doctor": "Prüft diese Maschine und diese Installation.",
}
UNTOLD = frozenset({"sha256", "recipe", "config"})  # parts of the card that are no figures
BLOCK = re.compile(
    r"(<!-- ([a-z-]+)(?::([^>]+?))? -->\n)((?:(?!<!--).)*?)(<!-- end -->)", re.DOTALL
)


# what blocks hold


def verbs(language: str) -> str:
    """All commands with one line each; `de` for German, else English.

    Raises:
        KeyError: a command without a German line.
    """
    from detour.cli.main import VERBS

    is_german = language == "de"
    rows = [
        (f"[`detour {name}`]({_anchor(name)})", GERMAN_VERBS[name] if is_german else verb.help)
        for name, verb in VERBS.items()
    ]
    return table(("Befehl", "was er tut") if is_german else ("command", "what it does"), rows)


def _anchor(verb: str) -> str:
    return f"docs/command-line.md#detour-{verb}"


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command and what lies below it, as (path without `detour`, command, context)."""
    from detour.cli.main import group

    top = click.Context(
        group, info_name="detour", terminal_width=WIDTH, **dict(group.context_settings)
    )
    yield "", group, top
    yield from _below(group, top, "")


def _below(
    group: click.Group, above: click.Context, path: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        assert command is not None
        context = click.Context(command, parent=above, info_name=name, terminal_width=WIDTH)
        full = f"{path} {name}".strip()
        yield full, command, context
        if isinstance(command, click.Group):
            yield from _below(command, context, full)


def help_of(path: str) -> str:
    """What `detour PATH --help` prints in a terminal of 80 columns."""
    wanted = "" if path == "detour" else path
    for name, command, context in commands():
        if name == wanted:
            return f"```text\n{command.get_help(context).rstrip()}\n```\n"
    raise KeyError(f"there is no command {path!r}")


def signature(name: str) -> str:
    """A name of `detour` (`Base.ask`), or `module:name`, with its parameters."""
    target = pkgutil.resolve_name(name if ":" in name else f"detour:{name}")
    told = inspect.signature(target)
    shown = name.partition(":")[2] or name
    parts = list(_parameters(told))
    returns = "" if told.return_annotation is told.empty else f" -> {told.return_annotation}"
    text = f"{shown}({', '.join(parts)}){returns}"
    if len(text) > LINE:
        text = f"{shown}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"
    return f"```python\n{text}\n```\n"


def _parameters(told: inspect.Signature) -> Iterator[str]:
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    is_marked = False
    for name, parameter in told.parameters.items():
        if name == "self":
            continue
        is_marked |= parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not is_marked:
            is_marked = True
            yield "*"
        text = marks.get(parameter.kind, "") + name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        yield text if parameter.default is parameter.empty else f"{text} = {_shown(parameter)}"


def _shown(parameter: inspect.Parameter) -> str:
    text = repr(parameter.default)
    return "..." if text.startswith("<") else text


def settings(_: str) -> str:
    """The fields of `TrainConfig`."""
    from detour.cli.train import command
    from detour.training.config import TrainConfig

    flags = {parameter.name: parameter.opts[0] for parameter in command.params}
    rows = [
        (
            f"`{name}`",
            _usual(field.get_default(call_default_factory=True)),
            " and ".join(_bounds(field.metadata)),
            f"`{flags[name]}`" if name in flags else "",
            str(field.description),
        )
        for name, field in TrainConfig.model_fields.items()
    ]
    return table(("setting", "default", "allowed", "flag", "meaning"), rows)


def _usual(value: object) -> str:
    """Where there is none, the meaning says what is done."""
    return "" if value is None or value == {} else f"`{value}`"


def _bounds(metadata: list[Any]) -> Iterator[str]:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for bound in metadata:
        for name, words in signs.items():
            if hasattr(bound, name):
                yield f"{words} {getattr(bound, name)}"


def derived(_: str) -> str:
    """What a training run fills in where nothing is given."""
    from detour.training import config

    rate = (
        f"{config.RATE_AT_2048:g} · 2048 / width of the base, "
        f"between {config.LOWEST_RATE:g} and {config.HIGHEST_RATE:g}"
    )
    steps = f"three passes over the data, and at least {config.FEWEST_STEPS}"
    return table(("setting", "derived as"), [("`learning_rate`", rate), ("`steps`", steps)])


def lesson(_: str) -> str:
    """The sizes of a lesson on the starter and of its report."""
    from detour.evaluate import steer_report, teach
    from detour.training import fact, own_fact, world_fact

    doses = f"{steer_report.DOSES[0]:g} to {steer_report.DOSES[-1]:g}"
    sizes = {
        "questions that teach the fact": world_fact.ASKED,
        "of them again in a style": world_fact.STYLED,
        "tasks with the bare subject": world_fact.TASKS,
        "people whose answers are replayed, at most": world_fact.REPLAY_SUBJECTS,
        "rows in a batch": teach.DEFAULTS["batch_size"],
        "share of rows that chooses the checkpoint": teach.DEFAULTS["validation_share"],
        "held-out phrasings in the test, at most": world_fact.TESTED,
        "neighbours in the test": world_fact.NEIGHBOURS,
        "own other facts, and unrelated questions, at most each": world_fact.TESTED,
        "questions for each wording of a prompt": steer_report.PROMPTED,
        "sampled answers to each, beside the greedy one": steer_report.SAMPLES,
        "questions of the dose curve": steer_report.DOSED,
        "weights of the dose curve": doses,
        "tokens of an answer, at most": steer_report.LONGEST,
        "rephrasings asked of a base that is not the starter": own_fact.SAMPLES,
        "different phrasings that a fact needs, at least": fact.FEWEST_PHRASINGS,
    }
    return table(("what", "how many"), [(name, str(size)) for name, size in sizes.items()])


def world(_: str) -> str:
    """How many subjects, facts and phrasings the starter's world has, in each language."""
    from detour.training.phrasing import Novelty, templates
    from detour.training.world import LANGUAGES, World

    worlds = [World.load(language) for language in LANGUAGES]
    rows: list[tuple[str, ...]] = []
    facts = 0
    for kind in worlds[0].kind_nouns:
        for known in worlds:
            attributes, count = known.attributes_of(kind), len(known.of_kind(kind))
            told = [
                str(sum(len(templates(known, a, novelty)) for a in attributes))
                for novelty in Novelty
            ]
            names = ", ".join(a.name for a in attributes)
            size = count * len(attributes)
            facts += size if known is worlds[0] else 0
            rows.append((kind, known.language, str(count), names, str(size), *told))
    head = ("kind", "language", "subjects", "attributes", "facts", *(n.value for n in Novelty))
    total = f"\n{len(worlds[0].subjects)} subjects and {facts:,} facts in all, "
    return table(head, rows) + total + "the same in every language.\n"


def styles(_: str) -> str:
    """The styles of the starter's world by place, with what each is called in German."""
    from detour.training.world import PLACES, World

    english, german = World.load("en"), World.load("de")
    rows = [
        (place, name, german.styles[name].label)
        for place in PLACES
        for name, style in english.styles.items()
        if style.place == place
    ]
    return table(("place", "style", "in German"), rows)


def recipe(name: str) -> str:
    """Literal values of the recipe: a class, or a dictionary, as `pretrain.Recipe`, `rows.SHARES`.

    Raises:
        KeyError: there is no such module, or nothing of that name in it.
    """
    module, _, wanted = name.partition(".")
    path = RECIPE / f"{module}.py"
    if not path.is_file():
        raise KeyError(f"the recipe has no module {module!r}")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == wanted:
            return table(("setting", "value"), list(_fields(node)))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == wanted:
            told: dict[str, object] = ast.literal_eval(node.value)
            return table(("what", "value"), [(k, str(v)) for k, v in told.items()])
    raise KeyError(f"the recipe has no {name!r}")


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and field.value is not None:
            yield f"`{ast.unparse(field.target)}`", f"`{ast.unparse(field.value)}`"


def card(_: str) -> str:
    """The figures on the starter's card, or that there is none."""
    return figures(json.loads(CARD.read_text(encoding="utf-8"))) if CARD.is_file() else (
        "The packaged model has no card yet, so there are no figures to show.\n"
    )  # fmt: skip


def figures(told: Mapping[str, Any]) -> str:
    """A card as a table: figures with interval and n, other numbers and texts alone."""
    return table(("what", "value", "95 % interval", "n"), list(_told(told, "")))


def _told(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, ...]]:
    for key, item in value.items():
        name = path if key in ("figures", "bars") else f"{path} {key}".strip().replace("_", " ")
        if isinstance(item, Mapping) and set(item) == FIGURE:
            interval = f"{item['low']:.3f} … {item['high']:.3f}"
            yield name, f"{item['value']:.3f}", interval, str(item["n"])
        elif isinstance(item, Mapping) and key not in UNTOLD:
            yield from _told(item, name)
        elif isinstance(item, list) and key != "does_not_know":
            yield name, ", ".join(map(str, item)), "", ""
        elif isinstance(item, str | int | float):
            yield name, f"{item:,}" if isinstance(item, int) else str(item), "", ""


def errors(_: str) -> str:
    """Every class of error: what it is for, its exit code and its HTTP status."""
    from detour import errors as module
    from detour.errors import DetourError

    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, DetourError)]
    rows = [
        (
            f"`{kind.__name__}`",
            f"`{kind.__bases__[0].__name__}`" if kind is not DetourError else "",
            str(kind.exit_code),
            str(kind.http_status),
            " ".join((kind.__doc__ or "").split()),
        )
        for kind in found
    ]
    return table(("error", "is a", "exit code", "HTTP", "what it says"), rows)


def gpus(_: str) -> str:
    """The GPUs that `detour estimate` knows."""
    from detour.training.estimate import machine

    rows = [
        (
            f"`{name}`",
            f"{gpu.memory / 1e9:.0f}",
            f"{gpu.flops / 1e12:g}",
            f"{gpu.watts:g}",
            f"{gpu.link / 1e9:g}",
            gpu.source,
        )
        for name, gpu in machine.gpus().items()
    ]
    return table(("name", "GB", "TFLOP/s", "W", "link, GB/s", "from"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |\n" for row in lines)


MAKERS: dict[str, Callable[[str], str]] = {
    "verbs": verbs,
    "help": help_of,
    "signature": signature,
    "settings": settings,
    "derived": derived,
    "lesson": lesson,
    "world": world,
    "styles": styles,
    "recipe": recipe,
    "card": card,
    "errors": errors,
    "gpus": gpus,
}


# pages


def pages() -> list[Path]:
    """The README in both languages and every page of the documentation."""
    return [*(ROOT / name for name in READMES), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[tuple[str, str]]:
    """(kind, argument) of every generated block of a page."""
    return [(match[2], match[3] or "") for match in BLOCK.finditer(text)]


def updated(text: str) -> str:
    """The page with every block made anew.

    Raises:
        KeyError: a block of an unknown kind, or about something that is not there.
    """
    return BLOCK.sub(lambda m: m[1] + MAKERS[m[2]](m[3] or "") + m[5], text)


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    stale = 0
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = updated(before)
        if after != before:
            stale += 1
            if not is_check:
                page.write_text(after, encoding="utf-8")
            said = "is out of date" if is_check else "written"
            sys.stderr.write(f"{page.relative_to(ROOT)} {said}\n")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
