"""A loss of the user's own: `module:function`, or `file.py:function`.

The function is given what the model said and what it should have said, and returns one number to
make small. Knows how to find and call it; knows no model and no data.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TypeAlias, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detour.errors import ConfigError
from detour.language.catalogue import text


@dataclass(frozen=True, eq=False)
class Said:
    """What an own loss is given.

    Attributes:
        logits: in fp32, one row for every token that is learned; with a head, for every text.
        targets: the token or class that was wanted (int64), or the number, scaled to mean 0 and
            deviation 1 (fp32).
        row: which row of the batch each of them belongs to.
        rows: how many rows the batch has.
    """

    logits: Float[Tensor, "learned outputs"]
    targets: Tensor
    row: Int[Tensor, " learned"]
    rows: int


OwnLoss: TypeAlias = Callable[[Said], Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """A checked loss, and what its source was."""

    name: str
    function: OwnLoss
    digest: str

    def __call__(self, said: Said) -> Float[Tensor, ""]:
        """The loss of a batch.

        Raises:
            ConfigError: the function fails, or gives anything but one finite number.
        """
        try:
            loss = self.function(said)
        except Exception as cause:
            raise ConfigError(
                text("{name} failed", name=self.name),
                found=f"{type(cause).__name__}: {cause}",
                hint=text("it is given one argument with logits, targets, row and rows"),
            ) from cause
        if not isinstance(loss, Tensor) or loss.numel() != 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            found = tuple(loss.shape) if isinstance(loss, Tensor) else repr(loss)  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                text("{name} gives no loss", name=self.name),
                expected=text("a tensor with one number"),
                found=str(found),
            )
        self._check(said, loss)
        return loss.reshape(())

    def _check(self, said: Said, loss: Tensor) -> None:
        learns = said.logits.requires_grad and torch.is_grad_enabled()
        if learns and not loss.requires_grad:
            raise ConfigError(
                text("{name} gives a loss that nothing can be learned from", name=self.name),
                expected=text("a value computed from logits, without detach or item"),
            )
        if not bool(loss.detach().isfinite().all()):
            raise ConfigError(
                text("{name} gives no finite loss", name=self.name), found=str(float(loss.detach()))
            )


def find_objective(told: str) -> Objective:
    """The function behind `module:function` or `file.py:function`.

    Modules are looked for in the current folder too.

    Raises:
        ConfigError: no such module, file or function, or one that cannot be imported.
    """
    place, _, name = told.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigError(
            text("{told} names no function", told=told),
            expected="module:function",
            hint=text("for example my_losses.py:focal"),
        )
    module = _module(place)
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(
            text("{place} has no function {name}", place=place, name=name),
            expected=text("one of {names}", names=", ".join(_functions(module)) or text("none")),
        )
    return Objective(told, cast("OwnLoss", function), sha256(_source(module)).hexdigest())


def _source(module: ModuleType) -> bytes:
    """What says that it is another one: its file; where it is built into Python, that version."""
    path = getattr(module, "__file__", None)
    if path is None:
        return f"{module.__name__} {sys.version}".encode()
    try:
        return Path(path).read_bytes()
    except OSError as cause:
        raise ConfigError(
            text("{path} cannot be read", path=path), found=cause.strerror or str(cause)
        ) from cause


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        return _imported(place, lambda: _from_here(place))
    if not path.is_file():
        raise ConfigError(text("{path} does not exist", path=path), expected=text("a file"))
    # a name that hides no other module; data classes look themselves up under it
    name = f"_own_loss_{sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    loader = spec.loader if spec else None
    assert spec is not None
    assert loader is not None
    module = importlib.util.module_from_spec(spec)

    def run() -> ModuleType:
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return _imported(place, run)


def _from_here(place: str) -> ModuleType:
    here = str(Path.cwd())
    if here in sys.path:
        return importlib.import_module(place)
    sys.path.insert(0, here)
    try:
        return importlib.import_module(place)
    finally:
        sys.path.remove(here)


def _imported(place: str, run: Callable[[], ModuleType]) -> ModuleType:
    try:
        return run()
    except Exception as cause:
        raise ConfigError(
            text("{place} cannot be imported", place=place),
            found=f"{type(cause).__name__}: {cause}",
            hint=text("give a file, such as my_losses.py:focal, or a module that is installed"),
        ) from cause


def _functions(module: ModuleType) -> list[str]:
    return [n for n, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__]  # fmt: skip
