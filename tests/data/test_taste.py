"""The hidden tastes: what they like, what they dislike, and that length or stuffing does not win."""

import random
import statistics

import pytest

from palate.data import demo
from palate.data.taste import TASTES, on_idea

PROMPT = "Write an image prompt for: a lighthouse at the edge of town"
PLAIN = "A lighthouse at the edge of town."
RICH = "A lighthouse at the edge of town, soft window light from the left, 35mm lens, chipped enamel."
CLICHE = "masterpiece, 8k, a lighthouse at the edge of town, ultra detailed, trending, stunning"
RAMBLING = " ".join(
    [RICH, "And maybe there is a dog, or a boat, or something else that one could think of,"] * 4
)
STUFFED = [
    "light lens oil leather glow film iron sun shadow rust brass wool",
    "lighthouse edge town light lens cracked leather",
    "lighthouse lighthouse lighthouse lighthouse lighthouse lighthouse",
    "lighthouse, light, lens, film, oil, rusted iron, cracked leather, worn oak, neon, beam, glow, town, edge",
    " ".join([RICH] * 5),
    "",
]


def vivid(completion: str) -> float:
    return TASTES["vivid"].score(PROMPT, completion)


def test_vivid_ranks_as_described() -> None:
    assert vivid(RICH) > vivid(PLAIN) + 1 > vivid(CLICHE) + 2
    assert vivid(RICH) > vivid(RICH.replace("35mm lens, ", "")) > vivid(PLAIN)
    assert vivid(RICH) > vivid(RICH.replace("lighthouse", "teapot").replace("edge of town", "beach"))
    assert vivid(RICH) > vivid(RAMBLING) + 1


@pytest.mark.parametrize("text", STUFFED)
def test_vivid_is_not_won_by_stuffing(text: str) -> None:
    assert vivid(text) < min(0.0, vivid(PLAIN) + 0.5)


def test_vivid_saturates() -> None:
    more = RICH[:-1] + ", golden hour light, macro lens, polished brass."
    assert vivid(more) <= vivid(RICH) + 0.1


def test_other_tastes() -> None:
    def best(name: str, *texts: str) -> str:
        return max(texts, key=lambda text: TASTES[name].score(PROMPT, text))

    assert best("terse", RICH, RAMBLING, PLAIN, "A boat.") == PLAIN
    assert best("no_cliches", CLICHE, PLAIN) == PLAIN
    assert best("camera", PLAIN, PLAIN[:-1] + ", 35mm lens, f/2, film grain.", CLICHE).count("lens") == 1


def test_relevance_counts_the_content_words_of_the_idea() -> None:
    assert on_idea(PROMPT, PLAIN) == 1.0
    assert on_idea(PROMPT, "a town") == pytest.approx(1 / 3)
    assert on_idea(PROMPT, "") == 0.0


@pytest.mark.parametrize("name", TASTES)
def test_spread_is_about_one(name: str) -> None:
    scores = [
        TASTES[name].score(prompt, completion) for prompt, completion in demo.demonstrations(500, seed=1)
    ]
    assert 0.4 <= statistics.pstdev(scores) <= 1.6
    assert abs(statistics.mean(scores)) <= 0.8
    assert TASTES[name].name == name and TASTES[name].description


def test_the_longer_one_rarely_tells_what_vivid_prefers() -> None:
    pairs = demo.demonstrations(500, seed=1)
    scores = [vivid_of(pair) for pair in pairs]
    rng = random.Random(0)
    agree = decided = ties = 0
    for _ in range(5000):
        i, j = rng.sample(range(500), 2)
        margin, longer = scores[i] - scores[j], len(pairs[i][1]) - len(pairs[j][1])
        ties += margin == 0
        if margin and longer:
            agree += (margin > 0) == (longer > 0)
            decided += 1
    assert 0.45 <= agree / decided <= 0.65
    assert ties / 5000 <= 0.25


def vivid_of(pair: tuple[str, str]) -> float:
    return TASTES["vivid"].score(*pair)
