"""What a run of `train` or `teach` leaves on the disk, so that Ctrl-C is told truly.

An older run's files are told apart from this run's by when they were written. Knows paths and
messages; trains nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from detour.cli.options import in_a_chain
from detour.errors import ConfigError, Interrupted
from detour.language.catalogue import text

Stamp = tuple[int, int] | None  # modification time (ns) and inode; None where there is no file


def state_folder(output: Path) -> Path:
    """Where an interrupted run keeps its state: beside the adapter, hidden."""
    return output.parent / f".{output.name}.training"


class Unfinished:
    """A run that may be interrupted: its state, its adapter, and what lay there before.

    Attributes:
        output: the adapter's folder.
        state: the folder of the training's state.
        resume: whether an earlier run goes on.
    """

    def __init__(self, output: Path, resume: bool) -> None:
        """Raises ConfigError where there is no state to resume."""
        from detour.adapter.peft_format import WEIGHTS_FILE
        from detour.state_file import FILE

        self.output = output
        self.state = state_folder(output)
        self.resume = resume
        self._files = {"state": self.state / FILE, "adapter": output / WEIGHTS_FILE}
        self._before = {name: _stamp(path) for name, path in self._files.items()}
        if resume and self._before["state"] is None:
            raise ConfigError(
                text("{state} holds no interrupted run", state=self.state),
                hint=text("leave out --resume"),
            )

    def interrupted(self) -> Interrupted:
        """The error that says what is saved and how to go on."""
        kept = _stamp(self._files["state"]) is not None
        resumable = kept and (self.resume or self._is_new("state"))
        again = text("the same command with --resume") if resumable else text("run it again")
        if self._is_new("adapter"):
            return Interrupted(
                text(
                    "stopped after the training; the adapter is saved at {output}",
                    output=self.output,
                ),
                hint=text(
                    'detour ask "…" --chain {chain}; for what is missing, {again}',
                    chain=in_a_chain(self.output),
                    again=again,
                ),
            )
        if resumable:
            return Interrupted(
                text("stopped; the state is saved in {state}", state=self.state), hint=again
            )
        found = text("the state of an earlier run in {state}", state=self.state) if kept else ""
        return Interrupted(text("stopped; nothing of this run is saved"), found=found, hint=again)

    def drop(self) -> None:
        """Remove the state of a run that has ended."""
        if self.state.exists():
            shutil.rmtree(self.state)

    def _is_new(self, name: str) -> bool:
        now = _stamp(self._files[name])
        return now is not None and now != self._before[name]


def _stamp(path: Path) -> Stamp:
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
