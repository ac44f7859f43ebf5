"""Optional packages: imported only where they are used, and missed by name.

Which packages an extra brings is read from Detour's own metadata, so that it stands in one place
only. Knows names of packages; knows nothing of what they do.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType

from detour.errors import MissingExtra
from detour.language.catalogue import text

_DISTRIBUTION = "detour-lora"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*["']([a-z0-9._-]+)["']""")


def require(module: str, extra: str) -> ModuleType:
    """Import a module that comes with an extra.

    Args:
        module: its full name, such as "pyarrow.parquet".
        extra: the extra that brings it, such as "data".

    Raises:
        MissingExtra: it, or something that it needs, is not installed. Names the `pip` command.
    """
    return _imported(module, text("the extra {extra!r}", extra=extra), install_command(extra))


def require_own(module: str) -> ModuleType:
    """Import a package that no extra brings: whoever wants it installs it on their own.

    Raises:
        MissingExtra: it, or something that it needs, is not installed. Names the `pip` command.
    """
    return _imported(module, text("the package {name}", name=module), f"pip install {module}")


def _imported(module: str, expected: str, hint: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as cause:
        if (cause.name or "").partition(".")[0] == "detour":
            raise
        raise MissingExtra(
            text("{module} is needed here and is not installed", module=module),
            expected=expected,
            found=str(cause),
            hint=hint,
        ) from cause


def install_command(extra: str) -> str:
    """The line that installs an extra, for people to copy."""
    return f'pip install "{_DISTRIBUTION}[{extra}]"'


def packages_by_extra() -> dict[str, list[str]]:
    """Distribution names by extra; what is always needed stands under "". Without `all`."""
    found: dict[str, list[str]] = {}
    for line in requires(_DISTRIBUTION) or []:
        name = _NAME.match(line)
        extra = _EXTRA.search(line)
        if name and name[0] != _DISTRIBUTION:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return found


def installed_version(package: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
