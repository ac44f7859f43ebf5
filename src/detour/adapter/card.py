"""The card of an adapter: what it is for, what it was made from, and who may use it.

Written as README.md with YAML front matter, as model hubs read it; our own fields stand there
under `detour`. Front matter and text that others wrote are kept as they are. Knows text; knows no
tensors and touches no files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detour.errors import AdapterFormatError
from detour.language.catalogue import text

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_HUB_KEYS = {"base_model": "base_model", "license": "licence"}  # front matter to field
_OWN_TAGS = ("detour", "lora")
_FICTIONAL = "fictional"


class Card(BaseModel):
    """What is known about an adapter. Empty fields are not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    description: str = ""
    fictional: bool = False
    """Teaches something that is not true."""
    licence: str = ""
    """SPDX identifier as hubs write it, such as apache-2.0."""
    base_model: str = ""
    """Name of the base; a name only, the fingerprint is the proof."""
    data_sha256: str = ""
    seeds: tuple[int, ...] = ()
    config: dict[str, Any] = Field(default_factory=dict)
    """How it was trained, as JSON values."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """What was measured, as JSON values."""
    created: str = ""
    """Day or moment, ISO 8601."""
    intended_use: str = ""
    forbidden_use: str = ""
    front_matter: dict[str, Any] = Field(default_factory=dict)
    """Front matter that others wrote, kept as it was."""
    text: str = ""
    """The text below the front matter; empty: written from the fields."""

    @property
    def head(self) -> Mapping[str, Any] | None:
        """What a head tells, as it was trained; None for an adapter that has none."""
        told = self.config.get("head")
        return told if isinstance(told, dict) else None

    def with_(self, **changes: object) -> Card:
        """A copy with other fields.

        Raises:
            AdapterFormatError: no such field, or a value of the wrong kind.
        """
        return _validated({**self.model_dump(), **changes})

    def to_readme(self) -> str:
        """The whole README.md."""
        front = yaml.safe_dump(self._front(), sort_keys=False, allow_unicode=True, width=100)
        return f"---\n{front}---\n{self.text or self._prose()}"

    @staticmethod
    def from_readme(readme: str) -> Card:
        """The inverse of `to_readme`; also reads cards that other tools wrote.

        Raises:
            AdapterFormatError: the front matter is no YAML mapping, or its `detour` part is wrong.
        """
        match = _FRONT_MATTER.match(readme)
        if not match:
            return Card(text=readme)
        front = _front_matter(match[1])
        fields = _detour_fields(front)
        for key, field in _HUB_KEYS.items():
            if isinstance(front.get(key), str):
                fields[field] = front.pop(key)
        fields["fictional"] = _FICTIONAL in _tags(front)
        foreign = _without_own(front)
        card = _validated({**fields, "front_matter": foreign})
        text = readme[match.end() :]
        return card if text == card._prose() else card.with_(text=text)

    def _front(self) -> dict[str, Any]:
        front = dict(self.front_matter)
        for key, field in _HUB_KEYS.items():
            if getattr(self, field):
                front[key] = getattr(self, field)
        front["library_name"] = "peft"
        own = [*_OWN_TAGS, *([_FICTIONAL] if self.fictional else [])]
        front["tags"] = own + [tag for tag in _tags(self.front_matter) if tag not in own]
        excluded = {"front_matter", "text", "fictional", *_HUB_KEYS.values()}
        known = self.model_dump(mode="json", exclude=excluded, exclude_defaults=True)
        return {**front, "detour": known} if known else front

    def _prose(self) -> str:
        warning = "**Fictional: this adapter teaches something that is not true.**"
        cost = self.metrics.get("cost")
        measured = {name: value for name, value in self.metrics.items() if name != "cost"}
        parts = [
            warning if self.fictional else "",
            self.description,
            _section("Base", self.base_model),
            _section("Intended use", self.intended_use),
            _section("Forbidden use", self.forbidden_use),
            _section("Measured", "\n".join(f"- {line}" for line in _measured(measured))),
            _section("Cost of the training", "\n".join(f"- {line}" for line in _spent(cost))),
        ]
        return "\n" + "\n\n".join(part for part in ("# Adapter", *parts) if part) + "\n"


def _measured(metrics: Mapping[str, Any], before: str = "") -> list[str]:
    """`steered: 0.991 [0.952, 0.998], n = 112`, a line a figure; what lies deeper, by its path."""
    lines: list[str] = []
    for name, value in metrics.items():
        if isinstance(value, dict) and value.keys() >= {"value", "low", "high", "n"}:
            interval = f"[{value['low']:.3f}, {value['high']:.3f}]"
            told = "nothing to measure" if value["value"] is None else f"{value['value']:.3f}"
            lines.append(f"{before}{name}: {told} {interval}, n = {value['n']}")
        elif isinstance(value, dict):
            lines += _measured(value, f"{before}{name}, ")
        else:
            lines.append(f"{before}{name}: {value}")
    return lines


def _spent(cost: object) -> list[str]:
    """A line each for operations, time, energy and price, as far as they are told."""
    told = cost if isinstance(cost, dict) else {}
    known = {str(name): value for name, value in told.items() if value is not None}
    formats = {
        "flops": "{flops} floating-point operations, estimated",
        "tokens": "{tokens} tokens learned from",
        "seconds": "{seconds} s",
        "energy_wh": "{energy_wh} Wh ({energy_source}: {watts} W)",
        "price": "{price}, by the price of an hour",
    }
    blank = {"energy_source": "unknown", "watts": "?"}
    return [line.format(**{**blank, **known}) for name, line in formats.items() if name in known]


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


class _WithoutAliases(yaml.SafeLoader):
    """A few hundred bytes of aliases would stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name)")
        return super().compose_node(parent, index)


def _front_matter(text: str) -> dict[str, Any]:
    try:
        front = yaml.load(text, Loader=_WithoutAliases)
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise _unreadable(str(cause)) from cause
    if front is None:
        return {}
    if not isinstance(front, dict):
        raise _unreadable(repr(front)[:80])
    return front


def _detour_fields(front: dict[str, Any]) -> dict[str, Any]:
    fields = front.pop("detour", {})
    if not isinstance(fields, dict):
        raise _unreadable(f"detour: {fields!r}"[:80])
    return dict(fields)


def _tags(front: Mapping[str, Any]) -> list[Any]:
    tags = front.get("tags")
    return list(tags) if isinstance(tags, list) else []


def _without_own(front: dict[str, Any]) -> dict[str, Any]:
    """What is left for `front_matter` once everything that `_front` writes anew is gone."""
    foreign = dict(front)
    if foreign.get("library_name") == "peft":
        del foreign["library_name"]
    tags = [tag for tag in _tags(front) if tag not in (*_OWN_TAGS, _FICTIONAL)]
    if tags:
        foreign["tags"] = tags
    elif isinstance(foreign.get("tags"), list):
        del foreign["tags"]
    return foreign


def _validated(fields: dict[str, Any]) -> Card:
    try:
        return Card.model_validate(fields)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(f"{where}: {first['msg']}") from cause


def _unreadable(found: str) -> AdapterFormatError:
    return AdapterFormatError(
        text("the card's front matter (README.md) cannot be read"),
        expected=text("YAML with the fields of a card"),
        found=found,
        hint=text("mend or delete README.md; the weights do not depend on it"),
    )
