"""The figures in words: one sentence that answers "is it better?", and what should be known before believing it.

Pure: reads the dictionary that summary.py makes. The judge that was not trained on is asked first (the taste),
the learned reward only when there is no other.
"""

from math import ceil
from typing import Any, Literal

FEW_PROMPTS = 30  # below, a percentile bootstrap is too narrow to decide anything
MUCH_LONGER = 1.2  # times the baseline's length
FEWER_FINISHED = 0.05  # share of answers
FEWER_DISTINCT = 0.1

Outcome = Literal["better", "worse", "undecided", "too few prompts", "nothing to compare"]


def verdict(summary: dict[str, Any]) -> tuple[Outcome, str]:
    """Is the newest model better than the baseline? The outcome, and one sentence with its figures."""
    candidate = _candidate(summary)
    if candidate is None or not summary["judges"]:
        return "nothing to compare", "Nothing was compared: it takes two models and a judge."
    judge = _judge(summary)
    rate = candidate["against_baseline"][judge["name"]]["win_rate"]
    mine, theirs = candidate["label"], _baseline(summary)["label"]
    figures = f"it wins {percent(rate)} of comparisons by the {judge['label']}"
    if summary["prompts"] < FEW_PROMPTS:
        few = f"{summary['prompts']} held-out prompts are too few to say whether"
        return "too few prompts", f"{few} {mine} is better than {theirs}: {figures}."
    if rate["low"] > 0.5:
        return "better", f"{mine} is better than {theirs}: {figures}."
    if rate["high"] < 0.5:
        return "worse", f"{mine} is worse than {theirs}: {figures}."
    return "undecided", (
        f"{mine} can't be told apart from {theirs} on {summary['prompts']} prompts: {figures}"
        f"{_prompts_needed(rate, summary['prompts'])}."
    )


def headline(summary: dict[str, Any]) -> str:
    """The verdict's figure in a few words, for a list of runs."""
    candidate = _candidate(summary)
    if candidate is None or not summary["judges"]:
        return "nothing to compare"
    judge = _judge(summary)
    rate = percent(candidate["against_baseline"][judge["name"]]["win_rate"])
    return f"{candidate['label']} wins {rate} against {_baseline(summary)['label']} by the {judge['kind']}"


def cautions(summary: dict[str, Any]) -> list[str]:
    """Sentences that weaken the verdict, the weightiest first; empty when nothing stands out."""
    candidate = _candidate(summary)
    if candidate is None:
        return []
    base = _baseline(summary)
    return [
        *_judges_disagree(summary, candidate),
        *_reward_is_weak(summary),
        *_length_explains_it(summary, candidate, base),
        *_answers_changed_form(candidate, base),
        *_seen_in_training(summary),
    ]


def percent(found: dict[str, Any] | None) -> str:
    """`71 % [66, 76]`"""
    if found is None:
        return "–"
    return f"{100 * found['value']:.0f} % [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def number(found: dict[str, Any] | None, digits: int = 2) -> str:
    """`1.25 [1.10, 1.41]`"""
    if found is None:
        return "–"
    return f"{found['value']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _judge(summary: dict[str, Any]) -> dict[str, Any]:
    """The one that nothing was trained on, where there is one."""
    found: dict[str, Any] = next((j for j in summary["judges"] if j["kind"] == "taste"), summary["judges"][0])
    return found


def _candidate(summary: dict[str, Any]) -> dict[str, Any] | None:
    return next((model for model in summary["models"] if model["name"] == summary["candidate"]), None)


def _baseline(summary: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in summary["models"] if m["name"] == summary["baseline"])
    return found


def _prompts_needed(rate: dict[str, Any], prompts: int) -> str:
    """The interval shrinks with the root of the number of prompts: how many would settle this rate?"""
    distance = abs(rate["value"] - 0.5)
    if distance < 0.01:
        return ""
    needed = ceil(prompts * ((rate["high"] - rate["low"]) / 2 / distance) ** 2 / 10) * 10
    return f"; about {needed} prompts would settle a rate like this one"


def _side(rate: dict[str, Any]) -> int:
    return int(rate["low"] > 0.5) - int(rate["high"] < 0.5)


def _judges_disagree(summary: dict[str, Any], candidate: dict[str, Any]) -> list[str]:
    sides = {
        j["label"]: _side(candidate["against_baseline"][j["name"]]["win_rate"]) for j in summary["judges"]
    }
    if not [judge for judge in summary["judges"] if judge["kind"] == "taste"]:
        return [
            f"The only judge is the {label}. It learned from votes like those the model learned from, so this "
            "shows that training worked, not that people agree."
            for label in sides
        ]
    if len(set(sides.values())) > 1 and 1 in sides.values():
        words = {1: "better", 0: "undecided", -1: "worse"}
        said = "; ".join(f"the {label} says {words[side]}" for label, side in sides.items())
        return [f"The judges do not agree: {said}. A reward that rises alone is being over-optimised."]
    return []


def _reward_is_weak(summary: dict[str, Any]) -> list[str]:
    found = summary.get("reward_accuracy")
    if found is None or found["scores"] is None or found["longer"] is None:
        return []
    length_rule = max(found["longer"]["value"], 1 - found["longer"]["value"])
    if found["scores"]["low"] > length_rule:
        return []
    rule = f"{100 * length_rule:.0f} %"
    return [
        f"The learned reward orders {percent(found['scores'])} of pairs as the taste does; length alone, {rule}."
    ]


def _length_explains_it(
    summary: dict[str, Any], candidate: dict[str, Any], base: dict[str, Any]
) -> list[str]:
    ratio = candidate["characters"]["value"] / max(1.0, base["characters"]["value"])
    if 1 / MUCH_LONGER < ratio < MUCH_LONGER:
        return []
    change = f"{100 * (ratio - 1):.0f} % longer" if ratio > 1 else f"{100 * (1 - ratio):.0f} % shorter"
    parts = []
    for judge in summary["judges"]:
        found = candidate["against_baseline"][judge["name"]]
        alike = found["win_rate_similar_length"]
        if alike is not None:
            parts.append(f"{percent(alike)} by the {judge['label']}")
    among = "; between answers of similar length it wins " + ", ".join(parts) if parts else ""
    return [f"Its answers are {change}{among}."]


def _answers_changed_form(candidate: dict[str, Any], base: dict[str, Any]) -> list[str]:
    found = []
    if candidate["finished"]["value"] < base["finished"]["value"] - FEWER_FINISHED:
        found.append(
            f"It ends {100 * candidate['finished']['value']:.0f} % of its answers itself, the baseline "
            f"{100 * base['finished']['value']:.0f} %; the others are cut at the length limit."
        )
    if candidate["distinct"] < base["distinct"] - FEWER_DISTINCT:
        found.append(
            f"It repeats itself: {100 * candidate['distinct']:.0f} % of its answers to one prompt differ, the "
            f"baseline's {100 * base['distinct']:.0f} %."
        )
    return found


def _seen_in_training(summary: dict[str, Any]) -> list[str]:
    seen = {run: count for run, count in summary.get("seen_in_training", {}).items() if count}
    return [
        f"{count} of the {summary['prompts']} prompts were among the training rows of {run}."
        for run, count in seen.items()
    ]


def reward_lines(summary: dict[str, Any]) -> list[str]:
    """How often the learned reward agrees with votes and with the hidden taste, beside the length rule."""
    against = (
        ("held-out votes", summary["reward_on_votes"]),
        ("the hidden taste on held-out samples", summary["reward_accuracy"]),
    )
    return [
        f"agrees with {what} on {percent(found['scores'])} of {found['pairs']} pairs; "
        f"the longer one wins: {percent(found['longer'])}"
        for what, found in against
        if found
    ]
