"""Fills sentence patterns from word lists: the small generator behind the demo's text.

A pattern holds slots: `{name}` draws from the pool `name`, `{x=name}` also remembers the draw as `x`, and a
first word inflects it: `{a name}`, `{cap name}`, `{many noun}`, `{s verb}`, `{ed verb}`, `{ing verb}`. It is not
a template language: no conditions, no loops, no escapes. Used by `palate.data.demo`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

SLOT = re.compile(r"\{(?:(\w+) )?(?:(\w+)=)?(\w+)\}")
VOWEL_SOUND = re.compile(r"(?!uni|use|one\b|eu)[aeiou]|hour|honest|\d*8\d?mm", re.IGNORECASE)
TRIES_FOR_A_NEW_WORD = 3


@dataclass(frozen=True)
class Grammar:
    """Pools of patterns and the exceptions of English inflection."""

    pools: dict[str, list[str]]
    verbs: dict[str, list[str]]  # base -> third person, past, participle, -ing
    plurals: dict[str, str]

    def fill(self, pattern: str, rng: random.Random, bound: dict[str, str] | None = None) -> str:
        """The pattern with every slot replaced; draws named `{x=pool}` are added to `bound`."""
        return self._fill(pattern, rng, {} if bound is None else bound, set())

    def _fill(self, pattern: str, rng: random.Random, bound: dict[str, str], used: set[str]) -> str:
        def replace(match: re.Match[str]) -> str:
            form, memory, name = match.groups()
            text = bound.get(name) or self._draw(name, rng, bound, used)
            if memory:
                bound[memory] = text
            return self.inflect(text, form) if form else text

        return SLOT.sub(replace, pattern) if "{" in pattern else pattern

    def _draw(self, pool: str, rng: random.Random, bound: dict[str, str], used: set[str]) -> str:
        """One entry of a pool, preferably one this text has not used yet."""
        for _ in range(TRIES_FOR_A_NEW_WORD):
            pattern = rng.choice(self.pools[pool])
            if pattern not in used:
                break
        used.add(pattern)
        return self._fill(pattern, rng, bound, used)

    def inflect(self, text: str, form: str) -> str:
        """The text with an article, a capital, in the plural, or with its first word (a verb) inflected."""
        if form == "a":
            return f"{'an' if VOWEL_SOUND.match(text) else 'a'} {text}"
        if form == "cap":
            return text[:1].upper() + text[1:]
        if form == "many":
            head, _, last = text.rpartition(" ")
            return f"{head} {self._plural(last)}".strip()
        verb, _, rest = text.partition(" ")
        return f"{self._verb(verb, form)} {rest}".strip()

    def _plural(self, noun: str) -> str:
        if noun in self.plurals:
            return self.plurals[noun]
        if noun.endswith(("s", "x", "ch", "sh")):
            return noun + "es"
        if noun.endswith("y") and noun[-2:-1] not in "aeiou":
            return noun[:-1] + "ies"
        return noun + "s"

    def _verb(self, verb: str, form: str) -> str:
        if verb in self.verbs:
            return self.verbs[verb][{"s": 0, "ed": 1, "ing": 3}[form]]
        if form == "s":
            return self._plural(verb)  # the same spelling rules
        if form == "ed":
            soft_y = verb.endswith("y") and verb[-2:-1] not in "aeiou"
            return verb[:-1] + "ied" if soft_y else verb + ("d" if verb.endswith("e") else "ed")
        return (verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb) + "ing"


@cache
def load_words(filename: str) -> dict[str, Any]:
    """A word file of this package as it stands: pool name -> text or list (or, for styles, a mapping)."""
    text = resources.files("palate.data").joinpath(filename).read_text(encoding="utf-8")
    words: dict[str, Any] = yaml.safe_load(text)
    return words


def _is_pool(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    )


def entries(value: str | list[str]) -> list[str]:
    """A pool's entries: a list as it stands, a text split at its commas."""
    if isinstance(value, list):
        return value
    return [entry.strip() for entry in value.split(",") if entry.strip()]


@cache
def load_grammar(filename: str) -> Grammar:
    """The grammar in a word file; pools that are not texts or lists of texts are left to the caller."""
    words = load_words(filename)
    verbs = [line.split() for line in entries(words.get("irregular", ""))]
    plurals = [line.split() for line in entries(words.get("irregular_plurals", ""))]
    pools = {name: entries(value) for name, value in words.items() if _is_pool(value)}
    return Grammar(pools, {base: forms for base, *forms in verbs}, dict(plurals))
