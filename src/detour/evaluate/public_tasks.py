"""The lm-eval harness's benchmarks: loaded before anything runs, then run on one model.

Knows the harness's tasks and whether a base has room for them; knows no arms and no figures. The
harness is imported only when something is loaded or run.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from detour.errors import BaseError, ConfigError, DataError, RequestError
from detour.language.catalogue import Text, text
from detour.model.base import AnyChain, Base

SHOT_SEED = 1234  # the harness's own; every arm sees the same worked examples
CODE_FLAG = "HF_ALLOW_CODE_EVAL"  # what the metric asks for before it runs a program
SHOWN = 3  # causes in one message
_FAR = {"httpx", "huggingface_hub", "requests"}  # whose errors mean that data are out of reach

Loaded = Mapping[str, Any]
"""What the harness makes of one name: `tasks` by name and, of a group, `groups`."""


def load(
    manager: Any,  # noqa: ANN401 - the harness's own class
    names: Sequence[str],
    flag: str,
    folder: Path | None = None,
) -> dict[str, Loaded]:
    """Each name's tasks with their data, by the harness's `TaskManager`.

    Args:
        manager: knows the definitions.
        names: which.
        flag: what a person writes before names, such as `--benchmarks `.
        folder: where paths in definitions of one's own start.

    Raises:
        DataError: data that are not at hand, or a definition that makes no sense; names all such.
    """
    from huggingface_hub import constants

    loaded: dict[str, Loaded] = {}
    missing: dict[str, Exception] = {}
    for name in names:
        try:
            loaded[name] = manager.load([name])
        except Exception as cause:  # whatever definitions, data sets, the Hub and the network raise
            missing[name] = cause
            if isinstance(cause, ConnectionError) and not constants.HF_HUB_OFFLINE:
                break  # no network: half a minute of retries for each of the others
    if missing:
        untried = [name for name in names if name not in loaded and name not in missing]
        error = _not_loaded(missing, flag, list(loaded), folder)
        if untried:
            error.found = text("{causes}; not tried: {names}", causes=error.found,
                               names=", ".join(untried))  # fmt: skip
        raise error from next(iter(missing.values()))
    return loaded


def _not_loaded(
    missing: Mapping[str, Exception], flag: str, there: Sequence[str], folder: Path | None
) -> DataError:
    faulty = {name: cause for name, cause in missing.items() if not _out_of_reach(cause)}
    if faulty:
        return DataError(
            text("the harness cannot use the definition or the data of {names}",
                 names=", ".join(faulty)),
            found=_causes(faulty),
        )  # fmt: skip
    fetch = text("run it once with access to huggingface.co, or bring its cache here (HF_HOME)")
    others = text("{fetch}; without them: {command}", fetch=fetch, command=flag + ",".join(there))
    expected = text("data sets of the Hugging Face Hub, in its cache or within reach")
    if folder:
        expected = text("{expected}; or files, from {folder} on", expected=expected, folder=folder)
    return DataError(
        text("the data of {names} is not at hand", names=", ".join(missing)),
        expected=expected,
        found=_causes(missing),
        hint=others if there else fetch,
    )


def _out_of_reach(cause: Exception) -> bool:
    """Files that are not there and broken connections are all errors of the system."""
    return isinstance(cause, OSError) or type(cause).__module__.partition(".")[0] in _FAR


def _causes(missing: Mapping[str, Exception]) -> str:
    told = [f"{name}: {' '.join(str(_first(c)).split())[:160]}" for name, c in missing.items()]
    return "; ".join(told[:SHOWN] + ([f"… ({len(told) - SHOWN})"] if len(told) > SHOWN else []))


def _first(cause: BaseException) -> BaseException:
    """What data sets hide behind "an error occurred"."""
    return cause.__cause__ if cause.__cause__ and not isinstance(cause, OSError) else cause


def check_room(base: Base, tasks: Mapping[str, Any]) -> None:
    """Refuse benchmarks whose answers do not fit the context, before anything runs.

    Raises:
        RequestError: a benchmark that samples, or wants more new tokens than there is room for.
    """
    from detour.evaluate.harness import HarnessModel

    model = HarnessModel(base)
    for name, task in tasks.items():
        if task.get_config("output_type") == "generate_until":
            try:
                model.limits(task.get_config("generation_kwargs"))
            except RequestError as error:
                raise error.at(name) from error


def check_template(base: Base) -> None:
    """Refuse a base that cannot write conversations. Raises BaseError."""
    if not getattr(base.tokenizer, "chat_template", None):
        raise BaseError(
            text("this base's tokenizer has no chat template"),
            hint=text("leave out --chat-template"),
        )


def ask(
    base: Base,
    chain: AnyChain,
    loaded: Loaded,
    *,
    limit: int | None = None,
    told: str | None = None,
    chat_template: bool = False,
    runs_code: bool = False,
) -> Mapping[str, Any]:
    """The harness's own results: `results` by task, `samples` with every item's scores.

    Args:
        base: the model.
        chain: what acts in its slots.
        loaded: tasks, and groups of them; the worked examples are drawn anew from the same seed.
        limit: the first so many items of each task; by default all.
        told: what stands before every prompt.
        chat_template: write prompts as conversations.
        runs_code: permit tasks that run what the model writes; see `code_permitted`.

    Raises:
        DataError: a definition with a fault that shows only now.
        WrongBase, SlotError: a chain that does not belong on this base.
        RequestError: answers that do not fit the context.
    """
    from lm_eval.evaluator import evaluate

    from detour.evaluate.harness import HarnessModel

    for task in loaded["tasks"].values():
        task.set_fewshot_seed(SHOT_SEED)
    if told and not chat_template:
        told += "\n\n"  # the harness puts nothing between
    model = HarnessModel(base, chain)
    try:
        results = evaluate(
            model,
            dict(loaded),
            limit=limit,
            bootstrap_iters=0,
            system_instruction=told,
            apply_chat_template=chat_template,
            fewshot_as_multiturn=chat_template,
            confirm_run_unsafe_code=runs_code,
        )
    except (AssertionError, LookupError, TemplateError, ValueError) as cause:  # of a definition
        raise DataError(
            text("the harness fails on {names}", names=", ".join(loaded["tasks"])),
            found=f"{type(cause).__name__}: {cause}",
        ) from cause
    assert results is not None  # None only in other processes than the first
    return results


@contextmanager
def code_permitted(permitted: bool) -> Generator[None]:
    """Inside, programs that a model wrote may be run; afterwards it must be asked for again."""
    before = os.environ.get(CODE_FLAG)
    if permitted:
        os.environ[CODE_FLAG] = "1"
    try:
        yield
    finally:
        os.environ.pop(CODE_FLAG, None)
        os.environ.update({CODE_FLAG: before} if before is not None else {})


def why_skipped() -> Text:
    """Of a benchmark that runs programs, where nobody allowed that."""
    return text("it runs what the model writes; --allow-code-execution permits that")


def check_something_runs(kept: Sequence[object], skipped: Iterable[str]) -> None:
    """Refuse a run of which nothing is left. Raises ConfigError."""
    if not kept:
        raise ConfigError(
            text("every benchmark asked for runs what the model writes"),
            expected="--allow-code-execution",
            found=", ".join(skipped),
            hint=text("run it in a container: such programs can do whatever you can"),
        )
