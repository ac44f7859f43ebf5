"""The pieces of a page that fetches nothing: its frame, its sections, its tables, light and dark.

Knows HTML and catalogues; knows nothing of what the pages tell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from detour.language.catalogue import Catalogue

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2937;--soft:#6b7280;--line:#e5e7eb;--good:#15803d;
--warn:#b45309;--bad:#b91c1c;--paper:#f9fafb;--card:#fff;--mark:#bbf7d0;--bar:#93c5fd;
--on:#fff;--first:#1d4ed8;--second:#c2410c}
@media(prefers-color-scheme:dark){:root{--ink:#e5e7eb;--soft:#9ca3af;--line:#374151;--good:#4ade80;
--warn:#fbbf24;--bad:#f87171;--paper:#111827;--card:#1f2937;--mark:#166534;--bar:#3b82f6;
--on:#111827;
--first:#93c5fd;--second:#fdba74}}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);margin:0;
background:var(--paper)}main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.6rem;margin:.2rem 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:0 0 .6rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:1.1rem 1.3rem;margin:1rem 0;overflow-x:auto}.soft{color:var(--soft)}
section svg{display:block;width:100%;min-width:32rem;height:auto}
.verdict{display:inline-block;color:var(--on);border-radius:.4rem;padding:.15rem .7rem;
font-weight:600}
.ready{background:var(--good)}.dirty,.too_few{background:var(--warn)}.unusable{background:var(--bad)}
.error{color:var(--bad)}.warning{color:var(--warn)}.info{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem;margin:0}
mark{background:var(--mark);color:inherit;border-radius:.2rem}
.bar{background:var(--bar);height:.7rem;border-radius:.2rem;min-width:2px}
.columns{columns:2 22rem;column-gap:2rem}tr{break-inside:avoid}
.columns table{border-collapse:separate;border-spacing:0}.columns td{overflow-wrap:anywhere}
.columns td:first-child{width:40%}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
"""
_NUMBER = ' class="n"'


def page(title: str, above: str, body: str, t: Catalogue) -> str:
    """The whole page; `above` is text over the title, `body` is HTML below it."""
    return (
        f'<!doctype html><html lang="{t.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<p class="soft">{escape(above)}</p><h1>{escape(title)}</h1>{body}</main></body></html>'
    )


def section(title: str, body: str) -> str:
    """A card with a heading; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    above: str = "",
    numbers: Collection[int] = (),
) -> str:
    """A section with a table; `rows` are cells that are HTML already, as is what stands `above`.

    The columns of `numbers`, counted from 0, have heads that are aligned with them.
    """
    head = "".join(
        f"<th{_NUMBER if place in numbers else ''}>{escape(name)}</th>"
        for place, name in enumerate(heads)
    )
    top = f"<tr>{head}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return section(title, f"{above}<table>{top}{body}</table>")


def pairs(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A section with what has a name, as plain text, in two columns where there is room."""
    body = "".join(f"<tr>{cell(name)}{cell(told)}</tr>" for name, told in rows)
    return section(title, f'<div class="columns"><table>{body}</table></div>')


def cell(told: str, kind: str = "") -> str:
    """A cell of plain text; of kind "n" it is a number."""
    return f'<td class="{kind}">{escape(told)}</td>' if kind else f"<td>{escape(told)}</td>"
