"""`detour doctor`: this machine, this installation, and what is missing and how to get it.

Exit code 1 where something that is needed is missing or damaged; a missing extra is no fault.
Knows versions, files and hashes; loads no model.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from detour.cli.options import json_option
from detour.cli.output import print_json, print_table, say
from detour.errors import StorageError
from detour.extras import install_command, installed_version, packages_by_extra
from detour.language.catalogue import text
from detour.model.starter_card import starter_folder


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Check this machine and this installation."""
    report = examine()
    if as_json:
        print_json(report)
    else:
        _print(report)
    context.exit(1 if report["problems"] else 0)


def examine() -> dict[str, Any]:
    """Everything that the command tells, as JSON values."""
    packages = packages_by_extra()
    versions = {name: installed_version(name) for name in packages.pop("", [])}
    starter = _starter(starter_folder())
    home = _home()
    missing = [f"{name} is not installed" for name, found in versions.items() if found is None]
    problems = [*missing, *starter["problems"], *home["problems"]]
    return {
        "machine": _machine(),
        "versions": {"detour-lora": installed_version("detour-lora"), **versions},
        "starter": starter,
        "library": home,
        "extras": {name: _extra(name, wanted) for name, wanted in sorted(packages.items())},
        "problems": problems,
    }


def _machine() -> dict[str, Any]:
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
    }


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _starter(folder: Path) -> dict[str, Any]:
    card = folder / "card.json"
    if not card.is_file():
        problem = f"the packaged starter model is not in {folder}"
        return {"path": str(folder), "intact": False, "problems": [problem]}
    try:
        stated: dict[str, str] = dict(json.loads(card.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        problem = f"{card} cannot be read: {cause!r}"
        return {"path": str(folder), "intact": False, "problems": [problem]}
    problems = [
        f"{folder / name} is missing or damaged: install detour-lora again"
        for name, sha256 in stated.items()
        if _sha256(folder / name) != sha256
    ]
    return {"path": str(folder), "intact": not problems, "problems": problems}


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _home() -> dict[str, Any]:
    """Where adapters are kept, and whether something can be written there."""
    from detour.adapter.library import Library

    folder = Library.default().folders[0]
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    error = StorageError(
        text("{path} could not be written", path=folder),
        hint=text("set DETOUR_HOME to another folder"),
    )
    return {
        "path": str(folder),
        "writable": writable,
        "problems": [] if writable else [str(error)],
    }


def _extra(name: str, wanted: list[str]) -> dict[str, Any]:
    missing = [package for package in wanted if installed_version(package) is None]
    return {"installed": not missing, "missing": missing, "install": install_command(name)}


def _print(report: dict[str, Any]) -> None:
    machine = report["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    say(f"machine   {machine['system']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {gpus}")  # fmt: skip
    say(f"python    {machine['python']} ({machine['executable']}), {machine['threads']} threads")
    say(f"starter   {'intact' if report['starter']['intact'] else 'NOT USABLE'}")
    say(f"library   {report['library']['path']}")
    say()
    print_table(
        ("package", "version"), [(k, v or "MISSING") for k, v in report["versions"].items()]
    )
    say()
    rows = [
        (name, "yes" if extra["installed"] else f"no: {', '.join(extra['missing'])}",
         "" if extra["installed"] else extra["install"])
        for name, extra in report["extras"].items()
    ]  # fmt: skip
    print_table(("extra", "installed", "how to get it"), rows)
    for problem in report["problems"]:
        say(f"problem: {problem}")
    say("" if report["problems"] else "nothing is wrong")
