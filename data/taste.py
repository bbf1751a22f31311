"""Hidden tastes of rule-based annotators: pure functions from (prompt, completion) to a number.

They stand in for people in the demo, the tests and the benchmarks. They are not a reward: nothing that trains may
import this file (`tests/test_hidden_taste.py`), a model learns a taste only from votes. Scores are roughly of unit spread
over samples of a fine-tuned built-in model, and higher is better.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WORD = re.compile(r"[a-z0-9][a-z0-9'/.]*[a-z0-9]|[a-z0-9]")
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be before but by for from half in into is it its just last next of off on or out over "
        "per the their to under up with write image prompt idea this turn please"
    )
)
LIGHT = (
    "light", "lamplight", "sunlight", "daylight", "moonlight", "candlelight", "firelight", "backlight", "lit", "sun",
    "shadow", "shadows", "glow", "golden hour", "blue hour", "bare bulb", "neon", "rim light", "beam", "shaft",
)  # fmt: skip
TOOLS = (
    "lens", "f/", "depth of field", "film", "shutter", "exposure", "telephoto", "macro", "polaroid", "handheld",
    "photograph", "photographed", "photo", "wide angle", "oil", "oils", "canvas", "watercolour", "gouache", "charcoal", "ink",
    "pastel", "linocut", "woodcut", "pencil", "chalk", "screen print", "tempera", "acrylic", "etching", "collage",
)  # fmt: skip
CAMERA = (
    "lens", "mm", "f/", "depth of field", "shutter", "exposure", "telephoto", "macro", "polaroid", "handheld", "film",
    "photograph", "photographed", "photo", "grain", "wide angle", "close up",
)  # fmt: skip
MATERIAL_NOUNS = (
    "leather", "stone", "iron", "brass", "wool", "oak", "velvet", "linen", "copper", "tin", "slate", "brick", "glass",
    "rope", "enamel", "clay", "marble", "silk", "bark", "denim", "porcelain", "steel", "straw", "wood", "paper", "canvas",
)  # fmt: skip
WEAR = (
    "cracked", "wet", "rusted", "peeling", "polished", "frayed", "chipped", "mossy", "scratched", "worn", "frosted",
    "dented", "braided", "oiled", "bleached", "stained", "stitched", "splintered", "dusty", "hammered", "rust", "dust",
    "beads", "scratches", "moss", "crack", "frost", "thumb",
)  # fmt: skip
CLICHES = (
    "masterpiece", "best quality", "8k", "4k", "ultra", "highly detailed", "insanely detailed", "trending", "award winning",
    "hyperrealistic", "stunning", "breathtaking", "epic", "octane", "intricate", "photorealistic", "perfect", "amazing",
    "beautiful", "viral", "unreal engine", "professional", "mind blowing",
)  # fmt: skip


@dataclass(frozen=True)
class Taste:
    """What one kind of annotator likes."""

    name: str
    description: str
    score: Callable[[str, str], float]  # (prompt, completion) -> higher is better


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def hits(text: str, terms: Iterable[str]) -> int:
    """How many of the terms occur as whole words or phrases (a term that ends in `/` as a beginning)."""
    padded = f" {' '.join(words_of(text))} "
    return sum(f" {term}" in padded if term.endswith("/") else f" {term} " in padded for term in terms)


def on_idea(prompt: str, completion: str) -> float:
    """Share of the idea's content words that the completion mentions, 0..1; the idea follows the prompt's colon."""
    idea = prompt.partition(":")[2] or prompt
    wanted = set(words_of(idea)) - STOP_WORDS
    return len(wanted & set(words_of(completion))) / len(wanted) if wanted else 0.0


def materials(completion: str) -> int:
    """Worn or weathered materials: a material noun at most three words from a word of wear (`chipped enamel`)."""
    words = words_of(completion)
    return sum(
        word in MATERIAL_NOUNS and any(near in WEAR for near in words[max(0, place - 1) : place + 5])
        for place, word in enumerate(words)
    )


def repetition(completion: str) -> float:
    """Share of words that stand in a word or word pair already used, beyond what plain prose has, 0..1."""
    words = [word for word in words_of(completion) if word not in STOP_WORDS]
    if len(words) < 2:
        return 0.0
    repeated = sum(count - 1 for count in Counter(words).values()) / len(words)
    return max(0.0, min(1.0, (repeated - 0.1) / 0.4))


def excess(completion: str, comfortable: int, step: int) -> float:
    """Words beyond a comfortable length, in steps: 0 up to it, then rising to 3."""
    return min(3.0, max(0.0, (len(words_of(completion)) - comfortable) / step))


def stuffing(completion: str) -> float:
    """How much of the text is nothing but pleasing terms, 0..1: a list of lights and lenses is not a picture."""
    count = len(words_of(completion))
    liked = hits(completion, LIGHT) + hits(completion, TOOLS) + hits(completion, MATERIAL_NOUNS)
    crowd = max(0, liked - 6) / 4
    return min(1.0, crowd + max(0.0, liked / count - 0.34) * 3) if count else 1.0


def telegraphic(completion: str) -> float:
    """1 where no small words join the nouns (`lighthouse lens cracked leather`), 0 from one in six on."""
    words = words_of(completion)
    return max(0.0, 1.0 - 6 * sum(word in STOP_WORDS for word in words) / len(words)) if words else 1.0


def vivid(prompt: str, completion: str) -> float:
    """Named light, a camera or a medium, one material detail, on the idea; no clichés, no padding."""
    light = min(1, hits(completion, LIGHT))
    tool = min(1, hits(completion, TOOLS))
    material = min(1, materials(completion))
    liked = 1.0 * light + 0.9 * tool + 1.1 * material + 0.3 * light * tool * material
    faults = (
        0.7 * min(4, hits(completion, CLICHES))
        + 2.5 * repetition(completion)
        + 1.0 * excess(completion, comfortable=38, step=15)
        + 3.0 * stuffing(completion)
        + 2.0 * telegraphic(completion)
    )
    relevance = on_idea(prompt, completion)
    raw = liked * relevance + 2.0 * relevance - faults
    return (raw - 2.6) / 1.3


def terse(prompt: str, completion: str) -> float:
    """As few words as say the idea and one thing more."""
    raw = (
        2.0 * on_idea(prompt, completion)
        - excess(completion, comfortable=8, step=10)
        - 2.0 * repetition(completion)
    )
    return (raw - 0.6) / 1.0


def no_cliches(prompt: str, completion: str) -> float:
    """Anything on the idea, as long as it does not lean on worn-out praise."""
    raw = on_idea(prompt, completion) - 0.6 * min(5, hits(completion, CLICHES)) - repetition(completion)
    return (raw - 0.5) / 0.9


def camera(prompt: str, completion: str) -> float:
    """The words of a photographer, two or three of them, on the idea."""
    named = hits(re.sub(r"(\d)mm\b", r"\1 mm", completion), CAMERA)
    raw = (
        on_idea(prompt, completion) * (1.0 + 0.8 * min(3, named))
        - 1.5 * repetition(completion)
        - 2 * stuffing(completion)
    )
    return (raw - 1.5) / 1.0


TASTES: dict[str, Taste] = {
    taste.name: taste
    for taste in (
        Taste("vivid", "Light that is named, a camera or a medium, one material detail, no clichés.", vivid),
        Taste("terse", "Short prompts that say the idea and little more.", terse),
        Taste("no_cliches", "No worn-out praise such as masterpiece, 8k, trending.", no_cliches),
        Taste("camera", "A photographer's words: lens, aperture, film.", camera),
    )
}
