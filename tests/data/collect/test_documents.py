"""Documents of every format, as passages with the line on which they begin."""

import re
import unicodedata
from pathlib import Path

import pytest
from tests.data.collect.pdf import pdf_of

from detour.data.collect import documents
from detour.data.collect.lengths import in_characters, in_tokens
from detour.data.collect.rows import LeftOut, Row
from detour.errors import DataError, MissingExtra
from detour.model.base import Base

DOCS = Path(__file__).resolve().parents[3] / "docs"


def rows_of(path: Path, limit: int = 400) -> list[Row]:
    found = list(documents.reader_of(in_characters(limit))(path))
    assert all(isinstance(one, Row) for one in found), found
    return [one for one in found if isinstance(one, Row)]


def blocks_of(folder: Path, name: str, told: str) -> list[tuple[str, int, bool]]:
    path = folder / name
    path.write_bytes(told.encode())
    return [(b.text, b.line, b.is_heading) for b in documents.blocks_of(path)]


def test_paragraphs_of_text(tmp_path: Path) -> None:
    assert blocks_of(tmp_path, "a.txt", "\ufeffone\r\ntwo\r\n\r\n\r\n  three \r\n") == [
        ("one\ntwo", 1, False), ("  three", 5, False)
    ]  # fmt: skip
    decomposed = unicodedata.normalize("NFD", "Gr\u00fc\u00dfe")
    assert blocks_of(tmp_path, "b.txt", decomposed) == [("Gr\u00fc\u00dfe", 1, False)]


def test_markdown(tmp_path: Path) -> None:
    told = """---
title: dropped
---
# One

text <!-- kept: it begins no line -->
<!-- dropped
# no heading
-->
right below

```python
# no heading, and <!-- kept -->

x = 1
```
Two
---
end
"""
    assert blocks_of(tmp_path, "a.md", told) == [
        ("# One", 4, True),
        ("text <!-- kept: it begins no line -->\nright below", 6, False),
        ("```python\n# no heading, and <!-- kept -->\n\nx = 1\n```", 12, False),
        ("Two\n---", 17, True),
        ("end", 19, False),
    ]


def test_markdown_that_nobody_closed(tmp_path: Path) -> None:
    assert blocks_of(tmp_path, "a.md", "````\n```\n# code") == [("````\n```\n# code", 1, False)]
    assert blocks_of(tmp_path, "a.md", "---\nno: end") == [("---\nno: end", 1, False)]
    assert blocks_of(tmp_path, "a.md", "a\n\n<!-- open\n\nb") == [("a", 1, False)]
    assert blocks_of(tmp_path, "a.md", "- a\n---\nb") == [("- a\n---\nb", 1, False)]


def test_restructured_text(tmp_path: Path) -> None:
    told = """=====
Title
=====

.. dropped: a comment

   with more of it

.. note:: kept

Part
~~~~
text::

    code
"""
    assert blocks_of(tmp_path, "a.rst", told) == [
        ("=====\nTitle\n=====", 1, True),
        (".. note:: kept", 9, False),
        ("Part\n~~~~", 11, True),
        ("text::", 13, False),
        ("    code", 15, False),
    ]


def test_html_is_what_a_reader_sees(tmp_path: Path) -> None:
    told = """<!DOCTYPE html><html><head><title>no</title><style>p {}</style>
<body><nav><a>no</a></nav>
<h1>Der
&Auml;rger</h1>
<p>Ein   Absatz <b>mit</b> &lt;Marken&gt;<br>und Zeile
<p>zwei<script>"<p>no"</script></p>
<pre>
def f():
    return 1
</pre>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
<ul><li>eins<li>zwei</ul><footer>no</footer></body></html>"""
    assert blocks_of(tmp_path, "a.html", told) == [
        ("Der \u00c4rger", 3, True),
        ("Ein Absatz mit <Marken>\nund Zeile", 5, False),
        ("zwei", 6, False),
        ("def f():\n    return 1", 8, False),
        ("a | b", 11, False),
        ("1 | 2", 11, False),
        ("eins", 12, False),
        ("zwei", 12, False),
    ]


def test_html_with_a_head_that_nobody_closed(tmp_path: Path) -> None:
    assert blocks_of(tmp_path, "a.htm", "<head><title>no</title><body>seen<svg/> too") == [
        ("seen too", 1, False)
    ]


def test_pages_of_a_pdf(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf_of([["The first page says", "this and that."], ["Page two follows."]]))
    assert [(b.text, b.line) for b in documents.blocks_of(path)] == [
        ("The first page says\nthis and that.", 1), ("Page two follows.", 2)
    ]  # fmt: skip
    (row,) = rows_of(path)
    assert row.to_json()["source"] == f"{path}, page 1"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="no PDF file"):
        documents.blocks_of(path)


def test_a_pdf_without_the_library_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(pdf_of([["Some text."]]))
    with pytest.raises(MissingExtra) as caught:
        documents.blocks_of(tmp_path / "a.pdf")
    assert caught.value.hint == 'pip install "detour-lora[retrieval]"'


def test_nothing_of_our_own_pages_is_lost() -> None:
    for page in sorted(DOCS.glob("*.md")):
        found = list(documents.reader_of(in_characters(300))(page))
        kept = "\n".join(row.record.text for row in found if isinstance(row, Row))
        names = set(re.findall(r"`([\w.-]+)`", page.read_text("utf-8")))
        tiny = {one.why for one in found if isinstance(one, LeftOut)}
        assert tiny <= {"tiny"}, page
        assert names <= set(re.findall(r"[\w.-]+", kept)), page
        lines = page.read_text("utf-8").split("\n")
        for row in found:
            if isinstance(row, Row):
                begun = lines[int(row.record.source.rpartition(":")[2]) - 1]
                first = row.record.text.split("\n")[0]
                assert first in begun, row.record.source


def test_a_length_in_tokens_is_kept_to(starter: Base) -> None:
    page = DOCS / "data.md"
    found = documents.reader_of(in_tokens(100, starter.tokenizer))(page)
    counts = [len(starter.tokenizer.encode(r.record.text)) for r in found if isinstance(r, Row)]
    assert max(counts) <= 100
    assert sum(counts) / len(counts) > 60


def test_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    read = documents.reader_of(in_characters(400))
    path.write_text(" \n\n")
    assert list(read(path)) == [LeftOut("no_text", str(path))]
    path.write_text("Contents")
    assert list(read(path)) == [LeftOut("tiny", f"{path}:1")]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("eins\nzw\u00f6lf".encode("latin-1"), "a.txt:2 is not UTF-8; expected UTF-8; found byte"),
        ("eins".encode("utf-16"), "UTF-16"),
        (b"one\0two", "a.txt is a binary file"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, raw: bytes, told: str) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(DataError, match=told):
        documents.blocks_of(tmp_path / "a.txt")


def test_a_folder_of_two_encodings_is_read_in_one_go(tmp_path: Path) -> None:
    told = "Die Straßenbahn fährt heute über die größte Brücke der Stadt."
    (tmp_path / "old.txt").write_bytes(told.encode("cp1252"))
    (tmp_path / "new.txt").write_bytes(told.encode("utf-8"))
    read = documents.reader_of(in_characters(400), "cp1252")
    texts = [row.record.text for name in ("old", "new") for row in read(tmp_path / f"{name}.txt")
             if isinstance(row, Row)]  # fmt: skip
    assert texts == [told, told]
    japanese = "日本語の文章をここに書きます。" * 5
    (tmp_path / "a.txt").write_bytes(japanese.encode("iso2022_jp"))
    (row,) = documents.reader_of(in_characters(400), "iso2022_jp")(tmp_path / "a.txt")
    assert isinstance(row, Row)
    assert row.record.prompt == japanese
