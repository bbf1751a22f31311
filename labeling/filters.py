"""What is not shown: answers that say who made them, and answers that are the same.

Blindness breaks when a model introduces itself (the Arena's data had to be cleaned of such votes after the
fact), and asking which of two equal answers is better only yields noise. Both are found before an item is
served, withheld, and counted.
"""

import re
from collections.abc import Sequence

from rapidfuzz import fuzz

SAME = 97.0  # similarity in percent (1 - normalised edit distance) from which two answers count as the same
_SHORT = 24  # shorter texts differ by a word when they differ at all: only equality counts
_LONG = 20_000  # of longer texts only so many characters are compared

_MAKERS = (
    r"open\s?ai|anthropic|google|deep\s?mind|meta(?:\s?ai)?|microsoft|mistral(?:\s?ai)?|alibaba(?:\s?cloud)?|deep\s?seek|"
    r"x\s?ai|cohere|hugging\s?face|lmsys|zhipu(?:\s?ai)?|moonshot(?:\s?ai)?|baidu|tencent|nvidia|ai21|ibm"
)
_MODELS = (
    r"chat\s?gpt|gpt-?[345]\w*|claude|gemini|bard|llama(?:[ -]?\d)?|vicuna|alpaca|mistral|mixtral|qwen(?:[ -]?\d)?|tongyi|"
    r"deep\s?seek|grok|command[- ]r|phi-?\d|falcon|zephyr|chatglm|open\s?assistant|smol\s?lm\w*|kimi|nemotron|olmo"
)
# what every name above begins with, or holds
_NAMES = (
    "open", "xai", "x ai", "ai21", "anthropic", "google", "deep", "meta", "microsoft", "mistral", "alibaba", "cohere", "hugging", "lmsys", "zhipu",
    "moonshot", "baidu", "tencent", "nvidia", "ibm", "chat", "gpt", "claude", "gemini", "bard", "llama", "vicuna", "alpaca",
    "mixtral", "qwen", "tongyi", "grok", "command", "phi", "falcon", "zephyr", "smol", "kimi", "nemotron", "olmo",
)  # fmt: skip
_MADE_BY = (
    r"(?:made|trained|created|developed|built|designed)\s+(?:and\s+\w+\s+)?by\s+(?:the\s+team\s+at\s+)?"
    rf"(?:{_MAKERS})\b"
)
_LEAKS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:i am|i'm|my name is|call me)\s+(?:an?\s+|the\s+)?(?:{_MODELS})\b",
        r"\bas\s+(?:chat\s?gpt|gpt-?[345]\w*|vicuna|qwen|deep\s?seek|chatglm|open\s?assistant)\b",
        rf"\b(?:as|i am|i'm)\s+an?\s[^.!?\n]{{0,60}}\b{_MADE_BY}",
        rf"\bi\s+(?:was|am|have been)\s+{_MADE_BY}",
        rf"\b(?:ich bin|ich heiße|je suis|soy|sono)\s+(?:ein\s+|une?\s+|un\s+)?(?:{_MODELS})\b",
    )
)

_PLAIN = str.maketrans({"\u2019": "'", "\u02bc": "'", "*": "", "_": "", "`": "", "\u00a0": " "})
_CODE = re.compile(r"```|[{};]\s*$|[=<>]=|\\[a-z]+\{", re.MULTILINE)
_TELLING = re.compile(r"\d+|\b(?:not|no|never|none|without|cannot|nicht|kein\w*|nie|ohne)\b|n't\b")


def plainly(text: str) -> str:
    """The text as it is searched: one kind of apostrophe, no marks of Markdown."""
    return text.translate(_PLAIN)


def identity_leak(text: str) -> str | None:
    """The words by which an answer says which model or maker it comes from, or None.

    Talking about a maker ("Google was founded in 1998") is no leak; claiming to be or to be made by one is.
    """
    text = plainly(text)
    low = text.casefold()
    if not any(name in low for name in _NAMES):  # nearly every text: a search for substrings is much quicker
        return None
    for pattern in _LEAKS:
        if found := pattern.search(text):
            return found.group(0)[:120]
    return None


def same(first: str, second: str) -> bool:
    """Whether two answers are so alike that ranking them would only measure chance.

    Equal but for case and spaces, or at least `SAME` percent alike. A difference in a number, in a negation or
    anywhere in code can decide a vote however small it is, so such answers are never the same.
    """
    one, two = (" ".join(text.casefold().split()) for text in (first, second))
    if one == two:
        return True
    if not _SHORT <= min(len(one), len(two)) <= max(len(one), len(two)) <= _LONG:
        return False
    if not fuzz.ratio(one, two, score_cutoff=SAME):
        return False
    return not _CODE.search(first + second) and _TELLING.findall(one) == _TELLING.findall(two)


def distinct(texts: Sequence[str]) -> list[int]:
    """Indices of the texts without those that repeat an earlier one."""
    kept: list[int] = []
    for i, text in enumerate(texts):
        if not any(same(texts[j], text) for j in kept):
            kept.append(i)
    return kept
