"""The data sets that an Axolotl or LlamaFactory file names: place, format and columns.

Of what such an entry asks for besides, every key that would change which rows are learned, or how,
gets a line. Knows their keys and our formats; reads no rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from detour.data.formats import ALIASES
from detour.data.meaning import SHAREGPT_ROLES
from detour.errors import ConfigError
from detour.language.catalogue import Text, joined, text
from detour.model.examples import read_text

Values = Mapping[str, Any]

FORMATS = {
    "alpaca": "alpaca", "sharegpt": "sharegpt", "chat_template": "messages",
    "completion": "text", "input_output": None, "openai": "messages",
}  # fmt: skip
# Axolotl's names for the keys of a turn, and those that are read
_TURN = {"role": ("role", "from"), "content": ("content", "value")}
_OLDER = {"message_field_role": "role", "message_field_content": "content"}
NOTHING = (None, False, "", [], {})
# a LlamaFactory entry: what is read, and other places of the same rows
_READ = {"file_name", "hf_hub_url", "formatting", "columns", "tags", "ms_hub_url", "om_hub_url"}
_ROLES = {"prompt": "instruction", "query": "input", "response": "output"}
_TAGS = {"role_tag": ("from", "role"), "content_tag": ("value", "content")} | {
    f"{tag}_tag": tuple(name for name, ours in SHAREGPT_ROLES.items() if ours == role)
    for tag, role in (("user", "user"), ("assistant", "assistant"), ("system", "system"),
                      ("observation", "tool"))
}  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """What is learned from, in words of this program.

    Attributes:
        place: a file, a folder, or a name on the Hub.
        format_name, columns: as the flags of `detour train`.
        left: a line for every key that cannot be followed.
    """

    place: str = ""
    format_name: str | None = None
    columns: dict[str, str] = field(default_factory=dict[str, str])
    left: tuple[str, ...] = ()


def axolotl_data(values: Values, path: Path) -> DataSet:
    """The one entry of `datasets`. Raises ConfigError: there are several, or several files."""
    chosen = the_one(values.get("datasets") or [], "datasets", path)
    told = cast("Values", chosen) if isinstance(chosen, dict) else {"path": chosen or ""}
    kind = told.get("type")
    own = cast("Values", kind) if isinstance(kind, dict) else {}
    files = told.get("data_files")
    if isinstance(files, list):
        files = the_one(cast("list[Any]", files), "data_files", path)
    columns = _fields({**told, **own})
    format_name = FORMATS.get(kind) if isinstance(kind, str) else None
    if kind == "chat_template" and _is_sharegpt(told):
        format_name = "sharegpt"
        columns["conversations"] = columns.pop("messages", "messages")
    return DataSet(
        str(files or told.get("path") or ""),
        format_name,
        columns,
        tuple(_axolotl_left(told, own)),
    )


def _fields(told: Values) -> dict[str, str]:
    """Axolotl's `field_messages: conversations` and the like."""
    found = {k.removeprefix("field_"): v for k, v in told.items() if k.startswith("field_") and v}
    if "field" in told:
        found["text"] = told["field"]
    if told.get("type") == "sharegpt" and "messages" in found:
        found["conversations"] = found.pop("messages")
    return {role: str(column) for role, column in found.items() if role in ALIASES}


def _properties(told: Values) -> dict[str, object]:
    """How a turn's keys are called: by Axolotl's mapping, or as older versions have it."""
    mapped = told.get("message_property_mappings")
    older = {ours: told[key] for key, ours in _OLDER.items() if told.get(key)}
    return {**(cast("dict[str, object]", mapped) if isinstance(mapped, dict) else {}), **older}


def _is_sharegpt(told: Values) -> bool:
    """Whether its turns say `from` and `value`, or have roles such as `human`."""
    named = _properties(told)
    return named.get("role") == "from" or named.get("content") == "value" or "roles" in told


def _axolotl_left(told: Values, own: Values) -> Iterator[str]:
    kind = told.get("type")
    if isinstance(kind, str) and kind and FORMATS.get(kind) is None:
        why = text("{value} is not known; the columns say what the rows are", value=repr(kind))
        yield joined(": ", ["datasets.type", why])
    given = {**told, **{f"type.{key}": value for key, value in own.items()}}
    for key, value in given.items():
        role = key.removeprefix("type.").removeprefix("field_")
        is_read = key in ("path", "data_files", "type", "ds_type", "field") or (
            role in ALIASES and "field_" in key
        )
        if not (is_read or value in NOTHING or _is_usual(key, value)):
            yield joined(": ", [f"datasets.{key}", _why(key, value)])


def _is_usual(key: str, value: Any) -> bool:  # noqa: ANN401 - whatever YAML holds
    if key == "message_property_mappings" and isinstance(value, dict):
        return all(theirs in _TURN.get(ours, (ours,))
                   for ours, theirs in cast("Values", value).items())  # fmt: skip
    if key in _OLDER:
        return value in _TURN[_OLDER[key]]
    if key == "roles" and isinstance(value, dict):
        return all(SHAREGPT_ROLES.get(str(name)) == ours
                   for ours, names in cast("Values", value).items() for name in names)  # fmt: skip
    return key == "split" and value == "train"


def llama_factory_data(values: Values, path: Path) -> DataSet:
    """The one name of `dataset`, by the `dataset_info.json` beside the data.

    Raises:
        ConfigError: several names, or a list that cannot be read or does not have the name.
    """
    given = values.get("dataset") or ""
    listed = cast("list[Any]", given) if isinstance(given, list) else str(given).split(",")
    name = str(the_one([one for one in listed if str(one).strip()], "dataset", path) or "").strip()
    folder = Path(values.get("dataset_dir") or "data")
    info = folder / "dataset_info.json"
    if not name or not info.is_file():
        return DataSet(name)
    known = _info(info)
    if name not in known:
        raise ConfigError(
            text("{path} names the data set {name!r}, which {info} does not have",
                 path=path, name=name, info=info),
            expected=text("one of {names}", names=", ".join(known)),
        )  # fmt: skip
    told = _entry(known[name], name, info)
    columns = cast("Values", told.get("columns") or {})
    roles = {_ROLES.get(role, role): str(column) for role, column in columns.items() if column}
    if told.get("formatting") == "sharegpt" and "messages" in roles:
        roles["conversations"] = roles.pop("messages")
    return DataSet(
        str(folder / told["file_name"]) if told.get("file_name") else str(told["hf_hub_url"]),
        FORMATS.get(told.get("formatting") or "alpaca"),
        {role: column for role, column in roles.items() if role in ALIASES},
        tuple(_llama_factory_left(told, name, roles)),
    )


def _info(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except ValueError as cause:
        raise ConfigError(text("{path} is not JSON", path=path), found=str(cause)) from cause
    if not isinstance(found, dict):
        raise ConfigError(
            text("{path} is no list of data sets", path=path),
            expected=text("an object with a name for each"),
            found=type(found).__name__,
        )
    return cast("dict[str, Any]", found)


def _entry(value: object, name: str, info: Path) -> Values:
    told = cast("Values", value) if isinstance(value, dict) else None
    if told is None or not all(isinstance(told.get(k) or {}, dict) for k in ("columns", "tags")):
        raise ConfigError(
            text("{info}: {name!r} is described by no object", info=info, name=name),
            expected='{"file_name": "rows.json", "columns": {…}}', found=repr(value)[:80],
        )  # fmt: skip
    if not (told.get("file_name") or told.get("hf_hub_url")):
        raise ConfigError(
            text("{info}: {name!r} lies where it is not read from", info=info, name=name),
            expected=text("one of {names}", names="file_name, hf_hub_url"),
            found=", ".join(told) or text("nothing"),
        )
    return told


def _llama_factory_left(told: Values, name: str, roles: Mapping[str, str]) -> Iterator[str]:
    tags = cast("Values", told.get("tags") or {})
    given = {
        **{key: value for key, value in told.items() if key not in _READ},
        **{f"columns.{role}": column for role, column in roles.items() if role not in ALIASES},
        **{f"tags.{tag}": v for tag, v in tags.items() if v not in _TAGS.get(tag, ())},
    }
    for key, value in given.items():
        if value not in NOTHING and not _is_usual(key, value):
            yield joined(": ", [f"dataset {name}.{key}", _why(key, value)])


def _why(key: str, value: Any) -> Text:  # noqa: ANN401 - whatever YAML holds
    if key == "split":
        return text("the split {split} is read whole", split="train")
    if key in ("shards", "num_samples", "shards_idx"):
        return text("all rows are used")
    if key in ("roles_to_train", "train_on_eos"):
        return text("all answers are learned, each with its end")
    return text("{value} has no meaning here", value=repr(value)[:40])


def the_one(found: Sequence[Any], key: str, path: Path) -> Any:  # noqa: ANN401 - whatever YAML holds
    """The only one of them, or None. Raises ConfigError: there are several."""
    if len(found) > 1:
        raise ConfigError(
            text("{path} names several {key}", path=path, key=key),
            expected=text("one"), found=str(len(found)),
            hint=text("put them into one file or folder, and name it as DATA"),
        )  # fmt: skip
    return found[0] if found else None
