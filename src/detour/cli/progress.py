"""The progress of a training run: a live bar in a terminal, a line now and then elsewhere.

Knows how progress looks; trains nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detour.cli.output import console, is_terminal, note
from detour.language.catalogue import ENGLISH, Catalogue

if TYPE_CHECKING:
    from detour.training.loop import Progress, Watcher

LINES = 5  # of a run that nobody watches


@contextmanager
def watched(title: str, t: Catalogue = ENGLISH) -> Generator[Watcher]:
    """A watcher for `train_with`, shown on stderr from the first step to the last."""
    if is_terminal(sys.stderr):
        with _live(title, t) as watcher:
            yield watcher
    else:
        yield lambda progress: _in_lines(title, progress, t)


@contextmanager
def _live(title: str, t: Catalogue) -> Generator[Watcher]:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
               TimeRemainingColumn())  # fmt: skip
    live = Bar(*columns, console=console(), transient=False)
    task = live.add_task(title, total=None, told="")

    def watch(progress: Progress) -> None:
        live.start()  # with the first step, so that it never redraws over what was said before
        live.update(task, total=progress.steps, completed=progress.step, told=_told(progress, t))
        if progress.step == progress.steps:
            live.stop()

    try:
        yield watch
    finally:
        if live.live.is_started:
            live.stop()


def _told(progress: Progress, t: Catalogue) -> str:
    return t(
        "{step}/{steps}  loss {loss:.3f}  {rate:.0f} tokens/s",
        step=progress.step,
        steps=progress.steps,
        loss=progress.loss,
        rate=progress.tokens_per_second,
    )


def _in_lines(title: str, progress: Progress, t: Catalogue) -> None:
    if progress.step % max(1, progress.steps // LINES) == 0 or progress.step == progress.steps:
        left = t("{seconds:.0f} s left", seconds=progress.seconds_left)
        note(f"{title}  {_told(progress, t)}  {left}")
