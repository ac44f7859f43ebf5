"""An adapter from the Hugging Face Hub, by `org/name[@revision]`.

Only the files of an adapter are fetched: configuration, safetensors, card and ours; no pickle and
no code. Knows names and files.
"""

from __future__ import annotations

import re
from pathlib import Path

from detour.errors import UnknownAdapter
from detour.language.catalogue import text

_LONGEST = 2 * 96 + 1  # characters; the Hub allows 96 for each word
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = [
    "adapter_config.json",
    "adapter_model*.safetensors*",
    "README.md",
    "detour.json",
    "test.jsonl",
]


def is_there(path: str | Path) -> bool:
    """Whether a file or folder lies there; not for names too long for the disk."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_hub_name(name: str) -> bool:
    """Whether it could be one: two plain words and one slash, and nothing of that kind right here.

    Where the folder before the slash is there, a slip in a path is likelier than a name.
    """
    is_plain = len(name) <= _LONGEST and _NAME.fullmatch(name) is not None and name[0] != "."
    return is_plain and not is_there(name) and not is_there(name.partition("/")[0])


def fetch(name: str, revision: str | None) -> Path:
    """The folder that holds the adapter now; what was fetched before is not fetched again.

    Raises:
        UnknownAdapter: no such adapter, no connection, or no right to read it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED))
    except (OSError, ValueError, HTTPError) as cause:
        lines = str(cause).strip().splitlines() or [""]
        raise UnknownAdapter(
            text("there is no adapter folder {name!r}", name=name)
            if revision is None
            else text("there is no adapter {name!r}", name=f"{name}@{revision}"),
            expected=text("a folder, or an id on the Hugging Face Hub that can be read from here"),
            found=f"{type(cause).__name__}: {lines[0][:200]}",
            hint=text("check the path"),
        ) from cause
