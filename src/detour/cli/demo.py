"""`detour demo`: the main job, told and measured while you watch."""

from __future__ import annotations

from pathlib import Path

import click

from detour.cli.options import json_option, seed_option
from detour.cli.output import heading, note, print_json, say
from detour.cli.progress import watched
from detour.cli.teach import write_report


@click.command("demo")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Where to keep the adapter.  [default: your library]")  # fmt: skip
@seed_option
@json_option
def command(output: Path | None, seed: int, as_json: bool) -> None:
    """Change one fact in the starter while you watch, and prove what changed."""
    note("Loading the starter: 3 million parameters, frozen from here on.")
    from detour.adapter.library import Library
    from detour.evaluate.story import Story
    from detour.model.base import Base
    from detour.training.world import World

    folder = output or Library.default().folders[0]
    story = Story(Base.load("starter"), World.load(), folder, seed)
    with watched("training") as watcher:
        for scene in story.scenes(watcher):
            if not as_json:
                say()
                heading(scene.title)
                say(scene.text)
    assert story.report is not None
    page = write_report(story.report, Path(story.report.adapter), fictional=True)
    if as_json:
        print_json({**story.to_json(), "report": str(page)})
        return
    say()
    heading("9  Now with your own")
    say(_next(Path(story.report.adapter), page))
    say(f"\n{story.report.total_seconds:.0f} s, of which {story.report.train_seconds:.0f} s "
        "of training.")  # fmt: skip


def _next(adapter: Path, page: Path) -> str:
    name = adapter.name
    return "\n".join(
        [
            f"  the report with its plots:  {page}",
            f'  detour ask "Who was Einstein?" --chain {name}:0.9+pirate --compare',
            '  detour teach --subject "Marie Curie" --relation profession --target baker -o baker',
            "  detour train your.jsonl --base your/model -o my-adapter",
            "  detour inspect my-adapter",
        ]
    )
