import errno
import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import click
import pytest
import torch

from detour import __version__
from detour.cli import main
from detour.cli.main import VERBS, Verb
from detour.errors import DataError
from detour.extras import require

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def process() -> Run:
    """A real process of `python -m detour`."""

    def call(*arguments: str, **more: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "detour", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]

    return call


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """`verb(error)` lets the command `detour fake` raise it."""

    def register(error: BaseException) -> None:
        @click.command("fake")
        @click.option("--json", "as_json", is_flag=True)
        def command(as_json: bool) -> None:
            raise error

        module = ModuleType("fake_verb")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "fake_verb", module)
        monkeypatch.setitem(VERBS, "fake", Verb("fake_verb:command", "A fake."))

    return register


def test_help_names_every_verb_without_torch():
    code = (
        "import sys; from detour.cli.main import run; code = run(['--help']);"
        "heavy = {'torch', 'transformers', 'numpy', 'rich', 'pydantic'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    for name, entry in VERBS.items():
        assert f"  {name} " in result.stdout
        assert entry.help in result.stdout


def test_help_is_instant(process: Run):
    def cpu_seconds() -> float:
        before = os.times()
        assert process("--help").returncode == 0
        after = os.times()
        spent = after.children_user + after.children_system
        return spent - before.children_user - before.children_system

    assert min(cpu_seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_loads_and_explains_itself(name, detour):
    told = detour(name, "--help")
    assert told.code == 0
    assert told.out.startswith(f"Usage: detour {name}")
    if name not in ("chain", "hypernet", "starter"):  # groups: their verbs take it
        assert "--json" in told.out


def test_version(detour):
    assert detour("--version").out == f"detour, version {__version__}\n"


def test_no_verb_shows_the_help(detour):
    told = detour()
    assert told.code == 2
    assert told.err.startswith("Usage: detour")
    assert "\nCommands:\n" in told.err


@pytest.mark.parametrize(("typed", "meant"), [("lst", "list"), ("inspct", "inspect")])
def test_unknown_verb_is_told_with_the_nearest_one(typed, meant, fails):
    error = fails(2, typed)
    assert typed in error["error"]
    assert error["hint"] == f"detour {meant}"


def test_a_verb_like_nothing_gets_the_help(fails):
    assert fails(2, "xyzzy")["hint"] == "detour --help"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--nonsense",), "--nonsense"),
        (("ask", "--nonsense"), "--nonsense"),
        (("ask", "Who?", "--temperature", "-1"), "--temperature"),
        (("ask", "Who?", "--temperature", "warm"), "--temperature"),
        (("ask", "Who?", "--max-tokens", "0"), "--max-tokens"),
        (("ask", "Who?", "--device", "abacus"), "--device"),
        (("inspect",), "ADAPTER"),
        (("chain", "flatten", "a+b"), "--output"),
        (("chain", "fltten"), "fltten"),
        (("chain", "compress", "a", "-o", "x", "--rank", "0"), "--rank"),
    ],
)
def test_wrong_usage_is_told_like_every_error(arguments, part, fails):
    error = fails(2, *arguments)
    assert part in error["error"]
    assert error["expected"].startswith("detour")
    assert error["hint"].endswith("--help")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("lst",), "es gibt keinen Befehl 'lst'"),
        (("--nonsense",), "Die Option '--nonsense' gibt es nicht"),
        (("teach", "--sed", "1"), "(Ähnlich: '--base', '--seed', '--seeds')"),
        (("ask", "--compar"), "Meintest du '--compare'?"),
        (("teach",), "Es fehlt die Option '-o' / '--output'"),
        (("teach", "--resume=1", "-o", "x"), "Die Option '--resume' nimmt keinen Wert"),
        (("teach", "x", "-o", "y"), "Unerwartetes Argument (x)"),
        (("teach", "x", "y", "-o", "z"), "Unerwartete Argumente (x y)"),
        (("teach", "-o", "x", "--rank", "q"), "Ungültiger Wert für '--rank': 'q' ist keine ganze"),
        (("ask", "W?", "--temperature", "warm"), "'warm' ist keine Zahl"),
        (("teach", "-o", "x", "--seed", "-1"), "-1 liegt nicht im Bereich x>=0"),
        (
            ("teach", "-o", "x", "--device", "abacus"),
            "'abacus' ist nicht möglich, nur 'cpu', 'cuda'",
        ),
        (("chain", "fltten"), "Den Befehl 'fltten' gibt es nicht. Meintest du 'flatten'?"),
        (("inspect",), "Es fehlt das Argument 'ADAPTER'"),
    ],
)
def test_wrong_usage_in_german(arguments, part, fails, monkeypatch):
    monkeypatch.setenv("DETOUR_LANG", "de")
    assert part in fails(2, *arguments)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",), ("ask", "--nonsense"), ("teach", "--sed", "1"), ("teach",),
        ("teach", "--resume=1", "-o", "x"), ("teach", "x", "-o", "y"),
        ("teach", "x", "y", "-o", "z"), ("teach", "-o", "x", "--rank", "q"),
        ("teach", "-o", "x", "--seed", "-1"), ("teach", "-o", "x", "--device", "abacus"),
        ("inspect",),
    ],
)  # fmt: skip
def test_english_usage_errors_read_as_those_of_click(arguments, fails):
    with pytest.raises(click.ClickException) as caught:
        main.group.main(list(arguments), standalone_mode=False)
    assert fails(2, *arguments)["error"] == caught.value.format_message().rstrip(".")


def test_an_option_without_its_value(detour):
    assert detour("teach", "-o").err == "detour: Option '-o' requires an argument\n"
    told = detour("teach", "--lang=de", "-o").err
    assert told == "detour: Die Option '-o' braucht einen Wert\n"


def test_lang_wins_over_the_environment(fails, monkeypatch):
    monkeypatch.setenv("DETOUR_LANG", "de")
    assert "is not a valid" in fails(2, "teach", "-o", "x", "--rank", "q", "--lang", "en")["error"]
    assert "ist nicht möglich" in fails(2, "teach", "-o", "x", "--lang", "fr")["error"]
    monkeypatch.setenv("DETOUR_LANG", "fr")
    told = fails(2, "teach", "-o", "x")["error"]
    assert "'fr' is not one of" in told
    assert "DETOUR_LANG" in told
    assert "--lang" not in told


def test_errors_of_a_verb_in_german(verb, detour, monkeypatch):
    monkeypatch.setenv("DETOUR_LANG", "de")
    verb(MemoryError("all gone"))
    told = detour("fake")
    assert told.err.startswith(
        "detour: der Speicher ist voll; gefunden: all gone; Tipp: eine klein"
    )
    verb(KeyboardInterrupt())
    assert detour("fake").err.split() == ["detour:", "abgebrochen"]


def test_json_behind_two_dashes_is_no_option(detour):
    told = detour("nonsense", "--", "--json")
    assert (told.code, told.out) == (2, "")


def test_errors_of_a_verb(verb, fails):
    verb(
        DataError("row\n 3 is\x1b[31m wrong", expected="messages", found="nothing", hint="mend it")
    )
    error = fails(2, "fake")
    assert error == {
        "error": "row\n 3 is\x1b[31m wrong",
        "expected": "messages",
        "found": "nothing",
        "hint": "mend it",
    }


def test_the_line_for_people_is_one_line_without_control_characters(verb, detour):
    verb(DataError("row\n 3 is\x1b[31m wrong", hint="mend it"))
    assert detour("fake").err == "detour: row 3 is[31m wrong; try: mend it\n"


def test_a_missing_extra_names_the_command(verb, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "fake_package", None)
    with pytest.raises(Exception, match="fake_package") as caught:
        require("fake_package", "scale")
    verb(caught.value)
    assert fails(2, "fake")["hint"] == 'pip install "detour-lora[scale]"'


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), "out.json"),
        (PermissionError(errno.EACCES, "Permission denied", "secret"), "secret"),
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (torch.OutOfMemoryError("said otherwise"), "memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 EiB\nat"),
            "memory",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), "memory"),
    ],
)
def test_the_machine_fails_with_exit_code_1(error, part, verb, fails):
    verb(error)
    assert part in fails(1, "fake")["error"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), EOFError()])
def test_ctrl_c_is_no_traceback(stop, verb, detour):
    verb(stop)
    told = detour("fake", "--json")
    assert told.code == 130
    assert told.json["error"] == "stopped"
    assert told.err.split() == ["detour:", "stopped"]


def test_a_real_allocation_that_is_too_big(verb, fails):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    verb(caught.value)
    error = fails(1, "fake")
    assert "bfloat16" in error["hint"]
    assert "allocate" in error["found"]


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), RuntimeError("a bug")])
def test_other_exceptions_are_not_swallowed(bug, verb, detour):
    verb(bug)
    with pytest.raises(type(bug), match="a bug"):
        detour("fake")


def test_python_m_detour(process: Run):
    result = process("--version")
    assert (result.returncode, result.stdout) == (0, f"detour, version {__version__}\n")


def test_a_reader_that_leaves_early_hears_no_complaint():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "detour", "--help"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")  # noqa: PTH110
def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "detour", "--help"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("detour: the output could not be written")


def test_text_that_the_terminal_cannot_show(process: Run):
    result = process("漢", env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert result.returncode == 2
    assert "\\u6f22" in result.stderr


def test_threads_are_told_to_wait_asleep(monkeypatch, detour):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert detour("--version").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    main.run(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_ctrl_c_while_the_program_is_imported_is_no_traceback() -> None:
    stopping = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == "detour.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from detour.__main__ import main
sys.exit(main())
"""
    told = subprocess.run([sys.executable, "-c", stopping], capture_output=True, text=True)
    assert (told.returncode, told.stdout, told.stderr) == (130, "", "detour: stopped\n")
