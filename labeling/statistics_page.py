"""The statistics page: the figures of `statistics.py` under the questions they answer.

The one page of the app on which models have names; it shows sums only, never which answer came from whom.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from palate.data.store import Store
from palate.labeling.screen import as_markdown
from palate.labeling.statistics import SHOWN, report, share_of

KIND_NAMES = {"human": "People", "rule": "Rules (simulated annotators)", "model": "Models as judges"}
DAYS = 14  # the latest days with votes that are listed


def statistics_page(store: Store, project: str) -> gr.Blocks:
    """The Blocks of /statistics; figures are computed when it is opened."""
    with gr.Blocks(title=f"Statistics · {project}", analytics_enabled=False, fill_width=True) as blocks:
        page = gr.Markdown(elem_id="statistics")
        blocks.load(
            lambda: as_page(report(store), project),
            None,
            page,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    return blocks


def as_page(found: dict[str, Any], project: str) -> str:
    """The report as Markdown."""
    lines = [f"# {cell(project)}", "[Back to ranking](/)", "", "### How far are we?"]
    lines.append(
        f"{found['votes']} votes stand on {found['answered']} of {found['comparisons']} comparisons."
        + (f" {found['superseded']} more were taken back and given again." if found["superseded"] else "")
    )
    if not found["kinds"]:
        lines.append("No votes yet: the figures appear here as soon as somebody has ranked something.")
    for kind in found["kinds"]:
        lines += ["", f"## {KIND_NAMES[kind['kind']]}", *_kind(kind)]
    return "\n".join(lines)


def _kind(kind: dict[str, Any]) -> list[str]:
    verdicts = {"ranked": "ranked", "tie": "ties", "all_bad": "all bad", "skip": "skipped"}
    shares = " · ".join(
        f"{share_of(kind['verdicts'][key], kind['votes'])} {name}" for key, name in verdicts.items()
    )
    time = "" if kind["seconds"] is None else f" · median {kind['seconds']:.0f} s per answer"
    people = len(kind["annotators"])
    by = "one annotator" if people == 1 else f"{people} annotators"
    lines = [f"{kind['votes']} votes by {by} · {shares}{time}", ""]
    lines += ["### Do they agree, more than chance?", _agreement(kind["agreement"])]
    lines += ["", "### Does the place on the screen or the length decide?"]
    lines += _table(
        ("", "share", "95 % interval", "pairs"),
        [("the answer shown first won", *_cells(kind["first_wins"])),
         ("the longer answer won", *_cells(kind["longer_wins"]))],
    )  # fmt: skip
    lines.append(
        "Places are drawn at random: where the first row's interval leaves out 50 %, the place itself decided some "
        "votes. The second row may be taste: longer answers can be better."
    )
    most = "" if people <= SHOWN else f" most (the first {SHOWN} of {people})"
    lines += ["", "### Which model is better, how sure?", *_models(kind["models"])]
    lines += ["", f"### Who voted{most}?", *_table(
        ("annotator", "votes", "ranked", "tie", "all bad", "skip", "median s", "first won", "95 % interval", "pairs"),
        [_person(row) for row in kind["annotators"][:SHOWN]],
    ), "", "### When?", *_table(("day (UTC)", "votes"), [(day, str(n)) for day, n in kind["days"][-DAYS:]])]  # fmt: skip
    return lines


def _agreement(found: dict[str, Any]) -> str:
    percent = found["percent"]
    if percent["value"] is None:
        return f"Not known: {percent['why']}. It needs comparisons that two annotators answer."
    share, interval, n = _cells(percent)
    alpha = f"{found['alpha']:.2f}" if found["alpha"] is not None else f"not known, {found['alpha_why']}"
    return (
        f"**{share}** of the pairs that two annotators decided were decided alike (95 %: {interval}; {n} "
        f"comparisons, {found['pairs']} pairs, {found['annotators']} annotators). Krippendorff's alpha: **{alpha}**. "
        "Guessing between two answers would agree half of the time, which is alpha 0; published human preference "
        "data lies between 63 % and 77 %, alpha 0.26 to 0.55."
    )


def _models(models: Sequence[Any]) -> list[str]:
    if not models:
        return ["All answers come from one model, so there is nothing to compare."]
    rows = [(cell(name), *_cells(share)) for name, share in models]
    text = "A win rate counts pairs against the other models; a tie is half a win."
    return [*_table(("model", "win rate", "95 % interval", "pairs"), rows), text]


def _person(row: dict[str, Any]) -> tuple[str, ...]:
    verdicts = [str(row["verdicts"][key]) for key in ("ranked", "tie", "all_bad", "skip")]
    seconds = "–" if row["seconds"] is None else f"{row['seconds']:.0f}"
    return (cell(row["name"]), str(row["votes"]), *verdicts, seconds, *_cells(row["first_wins"]))


def _cells(share: dict[str, Any]) -> tuple[str, str, str]:
    """(share, interval, n) as they stand in a table."""
    if share["value"] is None:
        return "–", share["why"], "0"
    if share["low"] is None:
        return f"{share['value']:.1%}", share["why"], str(share["n"])
    return f"{share['value']:.1%}", f"{100 * share['low']:.1f} – {100 * share['high']:.1f}", str(share["n"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, empty lines around it."""
    bar = "|".join("---" for _ in head)
    return ["", f"| {' | '.join(head)} |", f"|{bar}|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def cell(text: str) -> str:
    """A name for a Markdown line or table: shown as written, on one line."""
    escaped = as_markdown(" ".join(text.split()))
    return "".join(f"\\{mark}" if mark in "|`*_[]#~" else mark for mark in escaped)
