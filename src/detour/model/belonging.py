"""Whether an adapter belongs on a base, by what their fingerprints tell.

Other weights or another template forbid it; no fingerprint, or another tokenizer, raises doubts.
Knows adapters and fingerprints; loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from detour.adapter.adapter import Adapter
from detour.adapter.fingerprint import Fingerprint
from detour.errors import WrongBase
from detour.language.catalogue import Text, text

IN_MEMORY = "in-memory"  # the name of a model that came without one


def check_belongs(adapter: Adapter, here: Fingerprint) -> None:
    """Nothing, if the adapter may act on the base of this fingerprint.

    Raises:
        WrongBase: it was made for other weights or another chat template.
    """
    made_for = adapter.base
    if made_for is not None and not made_for.same_weights(here):
        raise _wrong_weights(adapter, made_for, here)
    if made_for is not None and _other_template(made_for, here):
        raise WrongBase(
            text(
                "the adapter {adapter} was made with another chat template",
                adapter=adapter.name,
            ),
            expected=text(
                "the template {digest} of {made_for}",
                digest=str(made_for.template_sha256)[:8],
                made_for=made_for.name,
            ),
            found=text(
                "the template {digest} of {here}",
                digest=str(here.template_sha256)[:8],
                here=here.name,
            ),
            hint=text("put the chat template it was trained with beside the model"),
        )


def doubts(adapter: Adapter, here: Fingerprint) -> Iterator[Text]:
    """What cannot be ruled out: that the names fit by chance, or that text becomes other ids."""
    made_for = adapter.base
    if made_for is None:
        yield _by_name(adapter, here)
        return
    known = made_for.tokenizer_sha256 is not None and here.tokenizer_sha256 is not None
    if known and made_for.tokenizer_sha256 != here.tokenizer_sha256:
        yield text(
            "{adapter}: its tokenizer's files were others; the same text may give other ids",
            adapter=adapter.name,
        )


def _by_name(adapter: Adapter, here: Fingerprint) -> Text:
    """What a foreign adapter's configuration says about its base, and how little that proves."""
    named = adapter.card.base_model
    if not named:
        return text(
            "{adapter}: unverified, it does not say which base it was made for",
            adapter=adapter.name,
        )
    last, this = (name.rstrip("/").rpartition("/")[2].lower() for name in (named, here.name))
    if last.partition("@")[0] == this.partition("@")[0]:
        return text("{adapter}: unverified, it names its base only", adapter=adapter.name)
    return text(
        "{adapter}: unverified, it says that it was made for {named}, and this is {here}",
        adapter=adapter.name,
        named=named,
        here=here.name,
    )


def _wrong_weights(adapter: Adapter, made_for: Fingerprint, here: Fingerprint) -> WrongBase:
    """Another model, or the same by name in another release: what to do differs."""
    named = made_for.name.partition("@")[0]
    if made_for.revision and named == here.name.partition("@")[0]:
        return WrongBase(
            text(
                "the adapter {adapter} was made for another revision of {base}",
                adapter=adapter.name,
                base=named,
            ),
            expected=f"{named}@{made_for.revision}",
            found=f"{named}@{here.revision or '?'}",
            hint=text(
                "--base {base}@{revision}, or train the adapter anew",
                base=named,
                revision=made_for.revision,
            ),
        )
    if made_for.name == here.name != IN_MEMORY:
        return WrongBase(
            text(
                "the adapter {adapter} was made for another release of {base}",
                adapter=adapter.name,
                base=here.name,
            ),
            expected=made_for.short,
            found=here.short,
            hint=text(
                "a new release has new weights, and an adapter fits one only: load the {base} of "
                "then, or train the adapter anew",
                base=here.name,
            ),
        )
    return WrongBase(
        text("the adapter {adapter} was made for another base", adapter=adapter.name),
        expected=made_for.short,
        found=here.short,
        hint=text(
            "load {made_for} as it was then, or train the adapter anew on this base",
            made_for=made_for.name,
        ),
    )


def _other_template(one: Fingerprint, other: Fingerprint) -> bool:
    known = one.template_sha256 is not None and other.template_sha256 is not None
    return known and one.template_sha256 != other.template_sha256
