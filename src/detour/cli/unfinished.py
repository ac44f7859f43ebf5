"""What a run of `train` or `teach` leaves on the disk, so that Ctrl-C is told truly.

A state that lies there is gone on with or removed, never overwritten. An older adapter is told
apart from this run's by when it was written. Knows paths and messages; trains nothing.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from detour.cli.options import in_a_chain
from detour.errors import ConfigError, Interrupted
from detour.language.catalogue import text

MODEL_FILE = "config.json"
Stamp = tuple[int, int] | None  # modification time (ns) and inode; None where there is no file


def state_folder(output: Path) -> Path:
    """Where an interrupted run keeps its state: beside the adapter, hidden."""
    return output.parent / f".{output.name}.training"


class Unfinished:
    """A run that may be interrupted: its state, what it makes, and what lay there before.

    Attributes:
        output: the folder of the adapter, or of the model where all weights are trained.
        state: the folder of the training's state.
        resume: whether an earlier run goes on.
    """

    def __init__(self, output: Path, resume: bool, whole: bool = False) -> None:
        """Raises ConfigError: no state to resume, or one that would be overwritten."""
        from detour.adapter.peft_format import WEIGHTS_FILE
        from detour.state_file import FILE

        self.output = output
        self.state = state_folder(output)
        self.resume = resume
        self._whole = whole
        made = output / (MODEL_FILE if whole else WEIGHTS_FILE)
        self._files = {"state": self.state / FILE, "made": made}
        self._before = {name: _stamp(path) for name, path in self._files.items()}
        if resume and self._before["state"] is None:
            raise ConfigError(
                text("{state} holds no interrupted run", state=self.state),
                hint=text("leave out --resume"),
            )
        if not resume and self._before["state"] is not None:
            raise ConfigError(
                text("{state} holds the state of an earlier run", state=self.state),
                expected=text("--resume, or no such folder"),
                hint=text("add --resume to go on with it, or remove the folder to begin anew"),
            )

    def interrupted(self) -> Interrupted:
        """The error that says what is saved and how to go on."""
        resumable = _stamp(self._files["state"]) is not None
        again = text("the same command with --resume") if resumable else text("run it again")
        if self._is_new("made"):
            return Interrupted(
                text("stopped after the training; {what} is saved at {output}",
                     what=text("the model") if self._whole else text("the adapter"),
                     output=self.output),
                hint=text("{call}; for what is missing, {again}", call=self.trial(), again=again),
            )  # fmt: skip
        if resumable:
            return Interrupted(
                text("stopped; the state is saved in {state}", state=self.state), hint=again
            )
        return Interrupted(text("stopped; nothing of this run is saved"), hint=again)

    def trial(self) -> str:
        """The command that asks what was made."""
        if self._whole:
            return f'detour ask "…" --base {as_base(self.output)}'
        return f'detour ask "…" --chain {in_a_chain(self.output)}'

    def drop(self) -> None:
        """Remove the state of a run that has ended."""
        if self.state.exists():
            shutil.rmtree(self.state)

    def _is_new(self, name: str) -> bool:
        now = _stamp(self._files[name])
        return now is not None and now != self._before[name]


def as_base(folder: Path) -> str:
    """A folder as --base takes it, never mistaken for a name of the Hub."""
    return shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}")


def _stamp(path: Path) -> Stamp:
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
