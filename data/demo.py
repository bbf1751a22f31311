"""The demo's text, invented from word lists: short ideas, image prompts for them in many styles, plain English.

The demo's task is to write an image prompt from a short idea. This module makes its ideas, its demonstrations
and the documents the built-in model is trained on. It is not the judge (`palate.data.taste`) and holds no text
copied from anywhere; the words stand in `demo_words.yaml` and `demo_english.yaml`.

    python -m palate.data.demo --n 5 --seed 0        # print a few demonstrations
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zlib import crc32

from palate.data import demo_english
from palate.data.demo_grammar import load_grammar, load_words

WORDS = "demo_words.yaml"
# Each idea belongs to one slot by its text's checksum, and each use and seed draws from a slot of its own, so that
# seeds 0..47 never share an idea, prompts never share one with demonstrations, and neither was seen in pretraining.
SLOTS = 128
SEEDS = 48
DOCUMENT_SLOTS = range(2 * SEEDS, SLOTS)
Document = str | list[dict[str, str]]  # a plain text, or the messages of a conversation

IDEA_FORMS = (  # which parts an idea has; short ones are as common as long ones
    ("noun", "place"),
    ("noun", "act"),
    ("adj", "noun", "place"),
    ("adj", "noun", "act"),
    ("noun", "act", "place"),
    ("noun", "act", "time"),
    ("noun", "place", "time"),
    ("adj", "noun", "act", "place"),
    ("adj", "noun", "place", "time"),
)
# Shares of the pretraining documents; the image-prompt task never appears as a conversation among them.
PROMPT_SHARE, IDEAS_SHARE, IDEA_CHAT_SHARE, CHAT_SHARE, TEXT_SHARE = 0.45, 0.05, 0.06, 0.14, 0.3


@dataclass(frozen=True)
class Idea:
    """A short idea in its parts: `a tired violinist` + `tuning up on a rooftop at dusk`."""

    noun: str  # the bare noun: violinist
    subject: str  # with adjective and article: a tired violinist
    scene: str  # everything after it: doing what, where, when

    @property
    def text(self) -> str:
        return f"{self.subject} {self.scene}"


def ideas(n: int, seed: int) -> list[str]:
    """`n` distinct short ideas; other seeds, and `demonstrations`, have other ones."""
    return [idea.text for idea in _distinct_ideas(n, seed, slot=2 * (seed % SEEDS))]


def instruction(idea: str) -> str:
    """The user's message for an idea, in one of a few phrasings that depends on the idea alone."""
    phrasings = load_grammar(WORDS).pools["instructions"]
    return phrasings[crc32(idea.encode()) // SLOTS % len(phrasings)].format(idea=idea)


def demonstrations(n: int, seed: int) -> list[tuple[str, str]]:
    """`n` pairs (instruction, image prompt), each for another idea, in a style drawn at random."""
    rng = random.Random(f"demonstrations/{seed}")
    chosen = _distinct_ideas(n, seed, slot=2 * (seed % SEEDS) + 1)
    return [(instruction(idea.text), image_prompt(idea, rng.choice(styles()), rng)) for idea in chosen]


def documents(n: int, seed: int) -> Iterator[Document]:
    """`n` pretraining documents: plain texts, and conversations as lists of messages."""
    rng = random.Random(f"documents/{seed}")
    writers: dict[Callable[[random.Random], Document], float] = {
        _prompt_document: PROMPT_SHARE,
        _ideas_document: IDEAS_SHARE,
        _idea_chat: IDEA_CHAT_SHARE,
        demo_english.chat: CHAT_SHARE,
        demo_english.text: TEXT_SHARE,
    }
    for _ in range(n):
        yield rng.choices(list(writers), list(writers.values()))[0](rng)


def styles() -> list[str]:
    """The names of the styles an image prompt can be written in."""
    return list(load_words(WORDS)["styles"])


def image_prompt(idea: Idea, style: str, rng: random.Random) -> str:
    """One image prompt for the idea in the given style."""
    pattern: str = rng.choice(load_words(WORDS)["styles"][style])
    return load_grammar(WORDS).fill(pattern, rng, _parts(idea))


def _draw_idea(rng: random.Random) -> Idea:
    grammar = load_grammar(WORDS)
    kind = rng.choice(("people", "animals", "things"))
    parts = {"adj": "idea_adj", "noun": kind, "act": f"{kind}_acts", "place": "places", "time": "times"}
    words = {part: rng.choice(grammar.pools[parts[part]]) for part in rng.choice(IDEA_FORMS)}
    subject = f"{words.get('adj', '')} {words['noun']}".strip()
    scene = " ".join(words[part] for part in ("act", "place", "time") if part in words)
    return Idea(words["noun"], grammar.inflect(subject, "a"), scene)


def _distinct_ideas(n: int, seed: int, slot: int) -> list[Idea]:
    rng = random.Random(f"ideas/{seed}/{slot}")
    found: dict[str, Idea] = {}
    while len(found) < n:
        idea = _draw_idea(rng)
        if crc32(idea.text.encode()) % SLOTS == slot:
            found.setdefault(idea.text, idea)
    return list(found.values())


def _document_idea(rng: random.Random) -> Idea:
    while crc32((idea := _draw_idea(rng)).text.encode()) % SLOTS not in DOCUMENT_SLOTS:
        pass
    return idea


def _ideas_document(rng: random.Random) -> str:
    return "Ideas\n" + "\n".join(f"- {_document_idea(rng).text}" for _ in range(rng.randint(3, 8)))


def _prompt_document(rng: random.Random) -> str:
    """An image prompt as it might stand in a notebook: under its idea, or beside another prompt for the same idea."""
    idea, other = _document_idea(rng), _document_idea(rng)
    style, style2 = rng.sample(styles(), 2)
    bound = {
        "idea": idea.text,
        "other": other.text,
        "style": style.replace("_", " "),
        "style2": style2.replace("_", " "),
        "prompt": image_prompt(idea, style, rng),
        "prompt2": image_prompt(idea, style2, rng),
        "other_prompt": image_prompt(other, style2, rng),
    }
    grammar = load_grammar(WORDS)
    return grammar.fill(rng.choice(grammar.pools["prompt_documents"]), rng, bound)


def _idea_chat(rng: random.Random) -> list[dict[str, str]]:
    """A question about an idea, and its answer: not the demo's task, which is left to fine-tuning."""
    idea, other = _document_idea(rng), _document_idea(rng)
    turns: list[str] = rng.choice(load_words(WORDS)["idea_chats"])
    texts = [load_grammar(WORDS).fill(turn, rng, _parts(idea) | {"other": other.text}) for turn in turns]
    return [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}]


def _parts(idea: Idea) -> dict[str, str]:
    return {"idea": idea.text, "subject": idea.subject, "scene": idea.scene, "noun": idea.noun}


def words() -> list[str]:
    """Every word and phrase in the demo's lists, for the tokenizer."""
    listed = [entry for pool in load_grammar(WORDS).pools.values() for entry in pool if "{" not in entry]
    return list(dict.fromkeys(listed + demo_english.common_words()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Print demonstrations of the demo's task.")
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for prompt, completion in demonstrations(args.n, args.seed):
        print(f"{prompt}\n  {completion}\n")


if __name__ == "__main__":
    main()
