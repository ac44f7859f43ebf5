"""The documentation is true: blocks are fresh, links lead somewhere, examples run."""

import ast
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import pytest

import detour
from detour.adapter import chain_text
from detour.adapter.adapter import Adapter
from detour.cli.main import VERBS, group, run
from detour.model.base import Base

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"(?:<!-- (?P<mark>run|file [\w./-]+) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_update", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


update = _load(ROOT / "docs/update.py")
PAGES: list[Path] = [*update.pages(), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
READMES = [ROOT / name for name in update.READMES]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

each_readme = pytest.mark.parametrize("readme", READMES, ids=lambda page: page.stem)


@dataclass(frozen=True)
class Fence:
    """One fenced block: its mark (`run`, `file NAME` or nothing), language, text and line."""

    mark: str
    language: str
    body: str
    line: int


def fences(page: Path) -> list[Fence]:
    text = page.read_text(encoding="utf-8")
    return [
        Fence(m["mark"] or "", m["language"], m["body"], text.count("\n", 0, m.start("body")))
        for m in FENCE.finditer(text)
    ]


def command_lines(body: str) -> Iterator[list[str]]:
    """The arguments of every `detour …` in a block of shell commands."""
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "detour":
            yield words[1:]


def check_command(arguments: list[str]) -> None:
    """Parse a command line down to its verb, and run nothing."""
    command, context, rest = group, click.Context(group, info_name="detour"), arguments
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0]) if rest else None
        assert found is not None, f"{arguments} names no command"
        command, rest = found, rest[1:]
    command.make_context("detour", list(rest), parent=context)


def slug(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return kept.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def broken_links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in LINK.findall(text) if not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"https?://", link):
        return True
    path, _, fragment = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not fragment or fragment in anchors(target)


@each_page
def test_generated_blocks_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert update.updated(text) == text, "run: python docs/update.py"
    assert text.count("<!-- end -->") == len(update.blocks(text))


def test_a_stale_block_is_made_anew_and_an_unknown_one_refused():
    fresh = update.updated("a\n<!-- help:ask -->\nstale\n<!-- end -->\nb\n")
    assert "--compare" in fresh
    assert "stale" not in fresh
    assert fresh.endswith("<!-- end -->\nb\n")
    for unknown in ("help:dance", "nonsense", "recipe:rows.NOTHING", "recipe:SHARES"):
        with pytest.raises(KeyError):
            update.updated(f"<!-- {unknown} -->\n<!-- end -->")


def test_a_table_of_the_recipe_is_that_of_the_named_module():
    mixture, rows = update.recipe("mixture.SHARES"), update.recipe("rows.SHARES")
    assert "| few_shot | 0.07 |" in mixture
    assert "| statement | 0.08 |" in rows
    assert "statement" not in mixture
    assert "| `context` | `1024` |" in update.recipe("pretrain.Recipe")


def test_the_world_and_its_styles_are_told_in_both_languages():
    told = update.world("")
    assert "| person | en | 271 |" in told
    assert "| person | de | 271 |" in told
    assert "441 subjects and 2,136 facts in all, the same in every language." in told
    assert "| wording | formal | Amtsdeutsch |" in update.styles("")


def test_the_card_as_a_table():
    figure = {"value": 0.975, "low": 0.95, "high": 0.99, "n": 400}
    told = update.figures(
        {"parameters": 2990000, "figures": {"plain": figure}, "sha256": {"a": "b"}}
    )
    assert told.splitlines()[2:] == [
        "| parameters | 2,990,000 |  |  |",
        "| plain | 0.975 | 0.950 … 0.990 | 400 |",
    ]


def test_every_command_is_documented():
    page = ROOT / "docs/command-line.md"
    shown = {
        argument for kind, argument in update.blocks(page.read_text("utf-8")) if kind == "help"
    }
    assert shown == {path or "detour" for path, _, _ in update.commands()}
    assert {f"detour-{verb}" for verb in VERBS} <= anchors(page)


def test_every_public_name_is_documented():
    text = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")
    shown = {argument.partition(".")[0] for kind, argument in update.blocks(text)}
    assert set(detour.__all__) - {"__version__"} <= shown


def test_every_page_is_in_the_index():
    listed = LINK.findall((ROOT / "docs/index.md").read_text(encoding="utf-8"))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= set(listed)


@each_readme
def test_the_tree_in_the_readme_is_complete(readme):
    text = readme.read_text(encoding="utf-8")
    packages = [p.parent.name for p in (ROOT / "src/detour").glob("*/__init__.py")]
    assert [name for name in packages if f" {name}/ " not in text] == []


@each_readme
def test_the_readme_has_no_open_place(readme):
    assert PLACEHOLDER.findall(readme.read_text(encoding="utf-8")) == []


def figures(readme: Path) -> list[str]:
    """The numbers in the table of results."""
    lines = readme.read_text(encoding="utf-8").partition("\n## ")[0].splitlines()
    told = " ".join(line for line in lines if line.startswith("|"))
    return re.findall(r"\d+(?:[.,]\d+)?", told)


def test_the_readmes_tell_the_same_figures():
    english, german = map(figures, READMES)
    assert len(english) > 10
    assert [figure.replace(",", ".") for figure in german] == english


def code_of(readme: Path) -> list[str]:
    """The Python of a page without what its strings say."""
    trees = [ast.parse(fence.body) for fence in fences(readme) if fence.language == "python"]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return [ast.unparse(tree) for tree in trees]


def test_the_readmes_show_the_same_code_and_link_each_other():
    english, german = READMES
    assert code_of(english)
    assert code_of(english) == code_of(german)
    for page, other in ((english, german), (german, english)):
        first_screen = page.read_text(encoding="utf-8").partition("\n## ")[0]
        assert other.name in LINK.findall(first_screen)


@each_page
def test_links_and_pictures_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Here we are\n[a](#here-we-are) [b](#there) [c](no.md) ![d](no.png)\n")
    assert broken_links(page) == ["#there", "no.md", "no.png"]


@each_page
def test_make_targets_exist(page):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    assert set(named) <= known


@each_page
def test_command_lines_can_be_read(page):
    for fence in fences(page):
        if fence.language == "bash":
            for arguments in command_lines(fence.body):
                check_command(arguments)


@pytest.mark.parametrize("line", ["detour dance", "detour ask --loud", "detour check", "detour"])
def test_a_wrong_command_line_is_found(line):
    (arguments,) = command_lines(line)
    with pytest.raises((AssertionError, click.UsageError)):
        check_command(arguments)


@each_page
def test_chains_can_be_read(page):
    for fence in fences(page):
        if fence.language == "chain":
            for line in fence.body.splitlines():
                assert chain_text.parse(line.partition("  #")[0])


@pytest.fixture
def own_things(
    tmp_path: Path,
    tiny_folder: Path,
    random_adapter: Callable[..., Adapter],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A user's folder: `my-model`, and `my-lora` for it; the library is empty."""
    (tmp_path / "my-model").symlink_to(tiny_folder)
    base = Base.load(str(tiny_folder))
    random_adapter(base.slots.shapes).save(tmp_path / "my-lora")
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SLOW_PAGES = ("collecting", "continual", "lora-relatives", "own-loss", "style", "translation")
"""Each trains for a quarter of a minute and more."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page.stem in SLOW_PAGES else [])
        for page in PAGES
        if any(fence.mark == "run" for fence in fences(page))
    ],
    ids=lambda page: page.stem,
)
def test_examples_run(page, own_things, capfd):
    """The marked blocks of a page, one after another, as a reader would run them."""
    names: dict[str, object] = {}
    for fence in fences(page):
        if fence.mark.startswith("file "):
            (own_things / fence.mark[5:]).write_text(fence.body, encoding="utf-8")
        elif fence.mark and fence.language == "python":
            code = "\n" * fence.line + fence.body
            exec(compile(code, str(page), "exec"), names)
        elif fence.mark:
            assert fence.language == "bash"
            for arguments in command_lines(fence.body):
                code = run(arguments)
                assert code == 0, (arguments, capfd.readouterr().err)
