"""`detour demo`: the main job, told and measured while you watch."""

from __future__ import annotations

from pathlib import Path

import click

from detour.cli.options import json_option, lang_option, seed_option
from detour.cli.output import heading, note, print_json, say
from detour.cli.progress import watched
from detour.cli.teach import told_json, write_report
from detour.errors import DetourError
from detour.language.catalogue import Catalogue


@click.command("demo")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Where to keep the adapter.  [default: your library]")  # fmt: skip
@seed_option
@lang_option
@json_option
def command(output: Path | None, seed: int, language: str, as_json: bool) -> None:
    """Change one fact in the starter while you watch, and prove what changed."""
    t = Catalogue.load(language)
    note(t("Loading the starter, frozen from here on."))
    from detour.adapter.library import Library
    from detour.evaluate.story import Story
    from detour.model.base import Base
    from detour.training.world import World

    folder = output or Library.default().folders[0]
    story = Story(Base.load("starter"), World.load(language), folder, seed, t)
    try:
        with watched(t("training"), t) as watcher:
            for scene in story.scenes(watcher):
                if not as_json:
                    say()
                    heading(scene.title)
                    say(scene.text)
    except (DetourError, KeyboardInterrupt):
        if story.report is not None:  # what was measured so far is not lost
            page = write_report(story.report, Path(story.report.adapter), fictional=True, t=t)
            note(t("stopped after the measuring; the report so far: {page}", page=page))
        raise
    assert story.report is not None
    page = write_report(story.report, Path(story.report.adapter), fictional=True, t=t)
    if as_json:
        print_json({**story.to_json(), **told_json(story.report, t), "report": str(page)})
        return
    say()
    heading(t("12  Now with your own"))
    say(_next(Path(story.report.adapter), page, t))
    say(
        t(
            "\n{total:.0f} s, of which {training:.0f} s of training.",
            total=story.report.total_seconds,
            training=story.train_seconds,
        )
    )


def _next(adapter: Path, page: Path, t: Catalogue) -> str:
    name = adapter.name
    taught = t('--subject "Marie Curie" --relation profession --target baker -o baker')
    return "\n".join(
        [
            t("  the report with its plots:  {page}", page=page),
            f'  detour ask "{t("Who was Einstein?")}" --chain {name}:0.9+pirate --compare',
            f"  detour teach {taught}",
            t("  detour train your.jsonl --base your/model -o my-adapter"),
            t("  detour inspect my-adapter"),
        ]
    )
