"""Answers that name their maker, and answers that are the same; what only looks like it is left alone."""

import pytest

from palate.labeling.filters import distinct, identity_leak, same


@pytest.mark.parametrize(
    "text",
    [
        "As an AI made by OpenAI I can't do that.",
        "Hello, I'm ChatGPT.",
        "My name is Claude, and I like tea.",
        "I am a large language model, trained by Google.",
        "As a language model, I was created by the team at Anthropic.",
        "I'm an AI assistant created by Alibaba Cloud.",
        "i was developed and trained by DeepSeek to help",
        "As ChatGPT, I have no body.",
        "Ich bin ein Qwen und helfe gern.",
        "Hello! I\u2019m Claude.",
        "I\u2019m an AI assistant made by OpenAI.",
        "I am **Qwen**, a large language model created by Alibaba Cloud.",
        "My name is _Gemini_.",
    ],
)
def test_who_made_it_is_a_leak(text: str) -> None:
    assert identity_leak(text)


@pytest.mark.parametrize(
    "text",
    [
        "Google was founded in 1998 by two students.",
        "BERT is a language model developed by Google.",
        "As Claude Monet painted it, the bridge is green.",
        "As an AI, I have no opinion.",
        "Compare GPT-4 with a llama in one sentence.",
        "The gemini twins were made by Zeus.",
    ],
)
def test_talking_about_makers_is_none(text: str) -> None:
    assert identity_leak(text) is None


LONG = "The lighthouse stands at the edge of the town and its light turns slowly over the grey sea at night"


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("a red fox", "A  red\nfox", True),
        ("a red fox", "a red box", False),
        (LONG, LONG + ".", True),
        (LONG, LONG.replace("slowly", "slowly,"), True),
        (LONG, LONG.replace("grey sea", "harbour wall"), False),
        (LONG + " in 1914", LONG + " in 1941", False),
        (LONG, LONG.replace("turns", "never turns"), False),
        ("for i in range(10): total = total + i if i <= 3 else 0", "for i in range(10): total = total + i if i < 3 else 0", False),
        ("", "   ", True),
    ],
)  # fmt: skip
def test_same(first: str, second: str, alike: bool) -> None:
    assert same(first, second) == alike
    assert same(second, first) == alike


def test_the_first_of_equals_stays() -> None:
    assert distinct(["one", "two", "One", "three", "two "]) == [0, 1, 3]
