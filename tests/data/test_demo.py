"""The demo's text: deterministic by seed, varied, and never the same idea twice in two uses."""

import random
import re
from itertools import islice

import pytest

from palate.data import demo
from palate.data.demo_grammar import Grammar, load_grammar


def ideas_of(pairs: list[tuple[str, str]]) -> set[str]:
    return {prompt.partition(": ")[2] for prompt, _ in pairs}


def test_ideas_are_distinct_and_repeatable() -> None:
    first = demo.ideas(400, seed=3)
    assert len(set(first)) == 400
    assert first == demo.ideas(400, seed=3)
    assert first[:50] == demo.ideas(50, seed=3)
    assert all(re.match(r"an? [a-z]", idea) and 3 <= len(idea.split()) <= 20 for idea in first)


def test_ideas_of_other_seeds_demonstrations_and_documents_are_disjoint() -> None:
    sets = [set(demo.ideas(150, seed)) for seed in (0, 1, 2)]
    sets += [ideas_of(demo.demonstrations(150, seed)) for seed in (0, 1)]
    text = "\n".join(str(document) for document in demo.documents(3000, seed=0))
    assert len(set().union(*sets)) == 5 * 150
    seen = [idea for ideas in sets for idea in ideas if f"- {idea}\n" in text or f"Idea: {idea}\n" in text]
    assert seen == []


def test_demonstrations_are_varied_and_on_the_idea() -> None:
    pairs = demo.demonstrations(300, seed=0)
    assert pairs == demo.demonstrations(300, seed=0)
    assert pairs != demo.demonstrations(300, seed=1)
    assert len({completion for _, completion in pairs}) == 300
    assert len({prompt.partition(":")[0] for prompt, _ in pairs}) >= 3  # phrasings
    lengths = sorted(len(completion.split()) for _, completion in pairs)
    assert lengths[15] <= 12 and lengths[-15] >= 40
    for prompt, completion in pairs:
        assert "{" not in prompt + completion
        nouns = set(prompt.partition(": ")[2].split()[1:])
        assert nouns & set(re.findall(r"[a-z']+", completion.lower())), (prompt, completion)


def test_an_instruction_depends_on_its_idea_alone() -> None:
    idea = "a lighthouse at the edge of town"
    assert demo.instruction(idea) == demo.instruction(idea)
    assert demo.instruction(idea).endswith(f": {idea}")


@pytest.mark.parametrize("style", demo.styles())
def test_every_style_fills(style: str) -> None:
    idea = demo.Idea("heron", "an old heron", "by the sea")
    texts = {demo.image_prompt(idea, style, random.Random(seed)) for seed in range(20)}
    assert all("heron" in text.lower() and "{" not in text for text in texts)
    assert len(texts) >= 8


def test_there_are_a_dozen_styles_and_many_common_words() -> None:
    assert len(demo.styles()) >= 12
    assert len({word for entry in demo.words() for word in entry.lower().split()}) >= 1500


def test_documents_are_deterministic_and_mixed() -> None:
    documents = list(demo.documents(400, seed=0))
    assert documents == list(demo.documents(400, seed=0))
    assert documents != list(demo.documents(400, seed=1))
    assert documents[:40] == list(islice(demo.documents(40, seed=0), 40))
    chats = [document for document in documents if isinstance(document, list)]
    assert 0.1 <= len(chats) / len(documents) <= 0.25
    for chat in chats:
        roles = [turn["role"] for turn in chat if turn["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        assert "prompt" not in str(chat).lower()  # the demo's task is left to fine-tuning
        assert "{" not in "".join(turn["content"] for turn in chat)


def test_grammar_remembers_and_inflects() -> None:
    grammar = Grammar(
        {"thing": ["owl"], "do": ["carry", "go", "bake"]}, {"go": ["goes", "went", "gone", "going"]}, {}
    )
    rng = random.Random(0)
    assert grammar.fill("{a x=thing}, {cap x}, {many x}", rng) == "an owl, Owl, owls"
    bound = {"v": "carry a box"}
    assert (
        grammar.fill("{s v}, {ed v}, {ing v}", rng, bound) == "carries a box, carried a box, carrying a box"
    )
    assert grammar.inflect("go home", "ed") == "went home"
    assert [grammar.inflect(noun, "a") for noun in ("hour", "unicorn", "85mm lens", "ochre")] == [
        "an hour",
        "a unicorn",
        "an 85mm lens",
        "an ochre",
    ]


@pytest.mark.parametrize("filename", ["demo_words.yaml", "demo_english.yaml"])
def test_word_lists_have_no_empty_pool_and_no_unknown_slot(filename: str) -> None:
    grammar = load_grammar(filename)
    given = {"idea", "subject", "scene", "noun", "style", "style2", "prompt", "prompt2", "other"}
    given |= {"other_prompt", "t"}
    for name, pool in grammar.pools.items():
        assert pool, name
        for entry in pool:
            remembered = given | set(re.findall(r"(\w+)=", entry))
            for slot in re.findall(r"(\w+)\}", entry):
                assert slot in grammar.pools or slot in remembered, (name, entry)
