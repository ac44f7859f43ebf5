"""Sentence frames in English and German, and the words with which an order begins.

Data for `widen`: what may stand before and after a description when it trains, and other frames
that only judge. Knows words only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Frame:
    """What stands around a description."""

    before: str = ""
    after: str = ""
    mark: str = ""
    """Ends the order that follows as a clause ("I want you to …"); empty where a sentence does."""


# what may open a sentence in training; a mark says that an order follows as a clause
OPENINGS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType({
    "en": (
        ("", ""), ("Your task: ", ""), ("I want you to ", "."), ("Task: ", ""),
        ("Please ", "."), ("Instruction: ", ""), ("Your task is to ", "."),
        ("Do the following: ", ""), ("Could you ", "?"), ("Here is what to do: ", ""),
        ("You are asked to ", "."), ("The job: ", ""), ("I would like you to ", "."),
        ("My request: ", ""), ("Your job is to ", "."), ("Please do the following: ", ""),
        ("You have to ", "."), ("From now on: ", ""), ("I need you to ", "."),
        ("For every message: ", ""), ("Would you please ", "?"), ("Rule: ", ""),
        ("The task is to ", "."), ("Follow this instruction: ", ""), ("You should ", "."),
        ("Dear assistant, a request: ", ""), ("Be so kind as to ", "."), ("Goal: ", ""),
        ("You must ", "."), ("What I need from you: ", ""), ("Your goal is to ", "."),
        ("Kindly observe the following: ", ""), ("We ask you to ", "."), ("Assignment: ", ""),
        ("You need to ", "."), ("Hey, one thing: ", ""), ("What you have to do is ", "."),
        ("This is the job: ", ""), ("Can you ", "?"), ("Read this and act on it: ", ""),
        ("It is your job to ", "."), ("Note to the model: ", ""), ("I ask you to ", "."),
        ("You are hereby instructed as follows: ", ""), ("Remember to ", "."),
        ("To whoever answers: ", ""), ("You are expected to ", "."),
    ),
    "de": (
        ("", ""), ("Deine Aufgabe: ", ""), ("Anweisung: ", ""), ("Bitte tu Folgendes: ", ""),
        ("Aufgabe: ", ""), ("Das ist zu tun: ", ""), ("Ab jetzt gilt: ", ""),
        ("Meine Bitte: ", ""), ("Folge dieser Anweisung: ", ""), ("Auftrag: ", ""),
        ("Ich brauche von dir Folgendes: ", ""), ("Regel: ", ""), ("Das sollst du tun: ", ""),
        ("Für jede Nachricht gilt: ", ""), ("Liebes Modell, eine Bitte: ", ""), ("Ziel: ", ""),
        ("Sie werden gebeten, Folgendes zu beachten: ", ""), ("Was ich von dir will: ", ""),
        ("Hey, nur eines: ", ""), ("Hier ist deine Aufgabe: ", ""), ("Mein Wunsch: ", ""),
        ("Lies das und handle danach: ", ""), ("Es geht um Folgendes: ", ""),
        ("Notiz an das Modell: ", ""), ("Halte dich an diese Regel: ", ""),
        ("Beschreibung der Aufgabe: ", ""),
    ),
})  # fmt: skip
ENDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "en": ("", " Thank you.", " Do this for every input.", " That is all.", " Thanks in advance!",
           " Apply this to each message.", " Please begin.", " This holds for all that follows.",
           " Stick to it throughout."),
    "de": ("", " Danke.", " Mach das bei jeder Eingabe.", " Das ist alles.",
           " Vielen Dank im Voraus!", " Wende das auf jede Nachricht an.", " Bitte fang an.",
           " Das gilt für alles, was folgt.", " Bleib dabei."),
})  # fmt: skip
HELD_OUT: Mapping[str, tuple[Frame, ...]] = MappingProxyType({
    "en": (
        Frame("A small favour is due: "), Frame(after=" Off you go."),
        Frame("What follows is everything I ask. "), Frame("Right then. ", " On with it."),
        Frame("Consider this agreed between us: "), Frame(after=" Each reply comes about so."),
        Frame("Somebody wants me to pass this on: "),
        Frame("If you would be so good: ", " Much obliged."),
    ),
    "de": (
        Frame("Ein kleiner Gefallen ist fällig: "), Frame(after=" Auf geht's."),
        Frame("Mehr als dies verlangt niemand: "), Frame("Na dann. ", " Ans Werk."),
        Frame("So haben wir es abgemacht: "), Frame(after=" So entsteht jede Antwort."),
        Frame("Man trug mir auf, dies weiterzugeben: "),
        Frame("Wenn du so gut wärst: ", " Ich bin dir verbunden."),
    ),
})  # fmt: skip


def _words(told: str) -> frozenset[str]:
    return frozenset(told.split())


# first words that make an order; what begins otherwise is taken for a statement, which fits into
# no clause
ORDERS: Mapping[str, frozenset[str]] = MappingProxyType({
    "en": _words(
        "act add analyse analyze annotate answer arrange ask assess assign assume behave build "
        "calculate categorise categorize change check choose classify combine come compare "
        "complete compose compute concatenate consider construct continue convert correct count "
        "craft create decide deduce define derive describe detect determine distinguish edit "
        "evaluate examine explain express extract fill find follow form generate give guess help "
        "identify imitate indicate infer insert interpret invent judge label let list make mark "
        "match mention modify name normalise normalize order output paraphrase perform pick point "
        "predict pretend produce provide put rank rate read recognise recognize remove reorder "
        "repeat rephrase replace reply report respond restate return reverse rewrite round say "
        "score select separate share shorten show simplify solve sort speak spell split state "
        "suggest summarise summarize swap take talk tell think transform translate try turn use "
        "verify write"
    ),
    "de": _words(
        "antworte beantworte benenne bestimme bewerte ergänze erkläre ersetze erzähle finde "
        "formuliere fülle gib kläre korrigiere löse markiere nenn nenne ordne prüfe sag sage "
        "schreib schreibe sortiere sprich teile übersetze vergleiche verrate wähle zähle "
        "zeig zeige"
    ),
})  # fmt: skip
NO_ORDER = frozenset({"of", "is", "are", "was", "were", "has", "have"})  # behind "name", "state"
