"""Every error that Detour raises on purpose.

    DetourError
    ├── UserError                exit 2, HTTP 400   something the user can mend
    │   ├── DataError            422   a data file or a row of it
    │   ├── ConfigError          400   an option, a configuration key
    │   ├── ChainError           400   a chain's text, weight or mix
    │   │   └── MixedBases           409   adapters that were made for different bases
    │   ├── RequestError         400   one question to a model
    │   ├── SlotError            422   keys or shapes that do not fit the model
    │   ├── BaseError            400   a model that cannot be loaded or lacks a part
    │   ├── TrainingError        422   a training that cannot or did not work
    │   ├── HypernetworkError    422   a hypernetwork that cannot be read or does not fit
    │   │   └── NotUnderstood        422   a description that it is not sure of (--strict)
    │   ├── MissingExtra         501   an optional package is not installed
    │   └── AdapterError         422
    │       ├── UnknownAdapter       404   no adapter of that name
    │       ├── AdapterFormatError   422   files that are not a readable adapter
    │       ├── AdapterWeightsError  422   NaN, wrong shapes, lying headers
    │       ├── AdapterTooLarge      413   above a limit of rank, bytes or files
    │       ├── UnsupportedVariant   422   a variant that is not applied
    │       └── WrongBase            409   made for another base
    ├── Interrupted              exit 130, HTTP 500 Ctrl-C; says what is saved
    └── MachineError             exit 1, HTTP 500   the machine, not the user
        ├── SlotsBusy            409   somebody else holds the slots
        └── StorageError         507   a disk that is full or read-only

A message says what was wrong; `expected`, `found` and `hint` say what would have been right, what
was there instead, and what to try. Each may be a `Text`, which a catalogue can say in another
language. This module knows nothing of models, files or HTTP.
"""

from __future__ import annotations

from typing import ClassVar, Self

from detour.language.catalogue import ENGLISH, Catalogue, Text, joined, text

_OUT_OF_MEMORY = (  # how torch says it in a plain RuntimeError
    "out of memory",
    "not enough memory",
    "DefaultCPUAllocator: can't allocate",
    "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
    "std::bad_alloc",
)


class DetourError(Exception):
    """The root. Carries its exit code for the command line and its status for HTTP."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, expected: str = "", found: str = "", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        return str(self.line)

    @property
    def line(self) -> Text:
        """Everything in one line; a catalogue says it in another language."""
        parts = [self.message]
        if self.expected:
            parts.append(text("expected {what}", what=self.expected))
        if self.found:
            parts.append(text("found {what}", what=self.found))
        if self.hint:
            parts.append(text("try: {what}", what=self.hint))
        return joined("; ", parts)

    def at(self, place: str) -> Self:
        """The same error, with where it happened before its message."""
        return type(self)(
            text("{place}: {fault}", place=place, fault=self.message),
            expected=self.expected,
            found=self.found,
            hint=self.hint,
        )

    def told(self, t: Catalogue = ENGLISH) -> str:
        """The line in the catalogue's language."""
        return t.say(self.line)

    def to_json(self, t: Catalogue = ENGLISH) -> dict[str, str]:
        """The one object that `--json` prints for an error; the keys are always English."""
        return {
            "error": t.say(self.message),
            "expected": t.say(self.expected),
            "found": t.say(self.found),
            "hint": t.say(self.hint),
        }


class UserError(DetourError):
    """Something the user can mend: input, options, files."""

    exit_code = 2
    http_status = 400


class DataError(UserError):
    """A data file, or one row of it, cannot be used. Names file and line."""

    http_status = 422


class NoSupervision(DataError):
    """A row in which nothing would be learned: no answer, or an empty one."""


class WrongEncoding(DataError):
    """Bytes that the file's encoding does not have: it is in another one."""

    likely: str = ""
    """In which it reads well, where that was looked at."""


class ConfigError(UserError):
    """An option or a configuration key is unknown or out of range."""


class ChainError(UserError):
    """A chain's text, weight or combination makes no sense."""


class MixedBases(ChainError):
    """Adapters of one chain were made for different bases."""

    http_status = 409


class RequestError(UserError):
    """One request to a model cannot be run: empty, too long, out of vocabulary."""


class SlotError(UserError):
    """Keys or shapes do not fit the model's layers."""

    http_status = 422


class BaseError(UserError):
    """A base model cannot be loaded, or lacks what was asked of it."""


class TrainingError(UserError):
    """A training run cannot start, or changed nothing."""

    http_status = 422


class HypernetworkError(UserError):
    """A hypernetwork cannot be read, or was not trained for what is asked of it."""

    http_status = 422


class NotUnderstood(HypernetworkError):
    """A description of which a hypernetwork is not sure enough."""


class MissingExtra(UserError):
    """An optional package is not installed."""

    http_status = 501


class AdapterError(UserError):
    """An adapter cannot be found, read or applied."""

    http_status = 422


class UnknownAdapter(AdapterError):
    """No adapter of that name."""

    http_status = 404


class AdapterFormatError(AdapterError):
    """Files that are not an adapter Detour can read."""


class AdapterWeightsError(AdapterError):
    """Tensors that are damaged: NaN, infinite, or of another shape than declared."""


class AdapterTooLarge(AdapterError):
    """Above a limit of rank, bytes, tensors or files; told before anything is read."""

    http_status = 413


class UnsupportedVariant(AdapterError):
    """A variant that Detour does not apply. Refused by name, never ignored."""


class WrongBase(AdapterError):
    """The adapter was made for another base."""

    http_status = 409


class Interrupted(DetourError):
    """Stopped by Ctrl-C. The message says what was saved, the hint how to go on."""

    exit_code = 130  # what shells report for a program that Ctrl-C ended


class MachineError(DetourError):
    """The machine failed, not the user."""


class SlotsBusy(MachineError):
    """The slots of this model are held by somebody else."""

    http_status = 409


class StorageError(MachineError):
    """A file could not be written: disk full, read-only, no permission."""

    http_status = 507


def is_out_of_memory(cause: RuntimeError) -> bool:
    """`torch.OutOfMemoryError` by its name, lest torch be imported to ask; else by what it says."""
    named = type(cause).__name__ == "OutOfMemoryError"
    return named or any(said in str(cause) for said in _OUT_OF_MEMORY)
