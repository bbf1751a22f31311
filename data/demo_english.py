"""Everyday English for the built-in model: short plain texts and small conversations, invented by patterns.

It gives the tokenizer the common words and the model the shape of questions and answers. It is not knowledge:
names, places and facts are made up. Used by `palate.data.demo.documents`.
"""

from __future__ import annotations

import random

from palate.data.demo_grammar import load_grammar, load_words

WORDS = "demo_english.yaml"
SYSTEM_SHARE = 0.25
WORD_POOLS = (
    "verbs", "people", "animals", "things", "foods", "places", "ideas", "adjectives", "colours", "adverbs",
    "prepositions", "function", "numbers", "digits", "days", "months", "names", "gadgets", "materials", "groups",
    "grave",
)  # fmt: skip


def text(rng: random.Random) -> str:
    """A short plain text: a few sentences, a story, a letter, a list, two sides of a debate."""
    grammar = load_grammar(WORDS)
    bound = {"t": rng.choice(grammar.pools["topics"])}
    return grammar.fill(rng.choice(grammar.pools["plain"]), rng, bound)


def chat(rng: random.Random) -> list[dict[str, str]]:
    """A small conversation: instructions and answers, sometimes after a system message."""
    grammar = load_grammar(WORDS)
    turns: list[str] = rng.choice(load_words(WORDS)["chats"])
    bound = _worked_out(rng)
    messages = []
    if rng.random() < SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(grammar.pools["systems"])})
    for number, turn in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        messages.append({"role": role, "content": grammar.fill(turn, rng, bound)})
        if bound.get("k") and "K" not in bound:
            three = rng.sample(grammar.pools[bound["k"]], 3)
            bound["K"] = "\n".join(f"- {word}" for word in three)
    return messages


def common_words() -> list[str]:
    """Every listed word once, in the order of the lists: what the tokenizer should know."""
    pools = load_grammar(WORDS).pools
    return list(dict.fromkeys(word for pool in WORD_POOLS for word in pools[pool]))


def _worked_out(rng: random.Random) -> dict[str, str]:
    """The slots whose answer is computed rather than drawn: a sum, and which of two words comes first."""
    pools = load_grammar(WORDS).pools
    first, second = rng.sample(pools["adjectives"], 2)
    left, right = rng.randint(1, 12), rng.randint(1, 12)
    return {
        "w1": first,
        "w2": second,
        "W": min(first, second).capitalize(),
        "d1": str(left),
        "d2": str(right),
        "D": f"{left} plus {right} is {left + right}.",
    }
