"""Review, Models: by how much style decides, and how models stand at equal style."""

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.bradley_terry import bradley_terry, clustered
from palate.labeling.statistics.formatting import interval, number
from palate.labeling.statistics.measures import Z95
from palate.labeling.statistics.panels import Cell, Column, Figure, Intervals, Panel, Table
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.standing import Scores, Standing, scores, standing
from palate.labeling.statistics.style import Style, style_control

QUESTION = "By how much does style decide?"
READ = (
    "50 % is no effect. A typical difference is the root mean square over the pairs that differ; the effects are those of "
    "each feature with the others and the models held equal."
)
CAUSES = (
    "What goes together with winning need not be why: good answers may be longer for good reasons, and control takes that "
    "away too."
)
TIES = "Here a tie is half a win, with and without control, so scores can differ from those above."
FEATURES = ("length", "headers", "list items", "bold spans")
LONGER = "longer answer"
MORE = ("more headers", "more list items", "more bold spans")
LABELS = (LONGER, *MORE)


def style_stand_in(found: Standing) -> Panel:
    """What is there while the fit of all votes is made."""
    figures = (Figure("pairs of answers that were judged", len(found.item), of="pairs", unit="count"),)
    return Panel("style", QUESTION, "The fit of all votes follows.", READ, figures, late=True)


def style_panel(facts: Facts, scope: Scope) -> Panel:
    """The effect of each feature, and the ranking with and without control."""
    found = standing(facts, scope)
    items = len(np.unique(found.item))
    if items < LEAST:
        lacking = f"An effect of style needs votes on {LEAST} items: {number(LEAST - items)} more."
        return Panel("style", QUESTION, read=READ, missing=lacking)
    plain, fit = facts.remember(("models style", scope), lambda: _fits(found))
    known = fit.known
    if not known:
        whys = "; ".join(f"{name}: {why}" for name, why in zip(FEATURES, fit.reasons, strict=True))
        return Panel("style", QUESTION, read=READ, missing=f"No effect can be told yet ({whys}).")
    tables = [_effects(fit)]
    ranked = len(found.order) > 1
    if ranked:
        tables.append(_both(found, plain, fit))
    return Panel(
        "style",
        QUESTION,
        _answer(found, fit, plain),
        READ,
        plots=(
            Intervals(
                [LABELS[one] for one in known],
                [_share(fit.gamma[one]) for one in known],
                [_share(fit.gamma_low[one]) for one in known],
                [_share(fit.gamma_high[one]) for one in known],
                "share of votes that the one with more wins",
                "share",
                0.5,
                "no effect",
            ),
        ),
        tables=tuple(tables),
        notes=(CAUSES, TIES) if ranked else (CAUSES,),
    )


def _fits(found: Standing) -> tuple[Scores, Style]:
    """(scores without control, the fit with it): both count a tie as half a win, so that they compare."""
    plain = clustered(bradley_terry(found.pairs), found.votes, found.item)
    fit = style_control(plain, found.votes, found.style, found.item)
    return scores(plain.beta, plain.low, plain.high, plain.scored, found.sure & plain.scored), fit


def _share(gamma: float) -> float:
    """The share of votes that the one with a typical difference more wins, all else equal."""
    return float(1 / (1 + np.exp(-gamma)))


def _answer(found: Standing, fit: Style, plain: Scores) -> str:
    ahead = np.abs(fit.gamma[fit.known]) / fit.gamma_se[fit.known]
    strongest = fit.known[int(ahead.argmax())]
    gamma, low, high = fit.gamma[strongest], fit.gamma_low[strongest], fit.gamma_high[strongest]
    span = interval(_share(low), _share(high), "share")
    won = f"{number(_share(gamma), 'share')} of the votes (95 %: {span}) at equal models and otherwise equal style"
    what = f"{_an(strongest)} by a typical difference ({_typical(fit, strongest)}) wins {won}"
    told = f"No effect of style shows: {what}" if low <= 0 <= high else f"{what[0].upper()}{what[1:]}"
    return f"{told}; {_ranking_said(found, fit, plain)}." if len(found.order) > 1 else f"{told}."


def _an(feature: int) -> str:
    return "an answer that is longer" if feature == 0 else f"an answer with {LABELS[feature]}"


def _typical(fit: Style, feature: int) -> str:
    """`2.1 times as long`: a difference r in (a - b) / (a + b + 1) is about a ratio of (1 + r) / (1 - r)."""
    scale = min(float(fit.scale[feature]), 0.999)
    return f"{number((1 + scale) / (1 - scale))} times as {'long' if feature == 0 else 'many'}"


def _ranking_said(found: Standing, fit: Style, plain: Scores) -> str:
    before, after = (_order(found, values) for values in (np.array(plain.value), fit.beta))
    if before == after:
        return "the order of the models stays the same at equal style"
    if before[0] != after[0]:
        return f"at equal style {found.named(after[0])} comes first instead of {found.named(before[0])}"
    moves = [(abs(before.index(one) - after.index(one)), one) for one in before]
    _, model = max(moves, key=lambda move: (move[0], -before.index(move[1])))
    ranks = f"from rank {number(before.index(model) + 1)} to {number(after.index(model) + 1)}"
    return f"at equal style {found.named(after[0])} stays first, and {found.named(model)} moves most, {ranks}"


def _order(found: Standing, beta: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    return [int(one) for one in np.argsort(-beta, kind="stable") if found.fit.scored[one]]


def _effects(fit: Style) -> Table:
    columns = (
        Column("feature", "feature"),
        Column("differs", "pairs that differ", "share"),
        Column("typical", "typical difference", help="root mean square over the pairs that differ"),
        Column("share", "wins", "share", "share_low", "share_high", "by the one with more, all else equal"),
        Column("gamma", "log-odds", "number", "gamma_low", "gamma_high", "gamma per typical difference"),
        Column("why", "why not"),
    )
    rows: list[dict[str, Cell]] = []
    for at, name in enumerate(FEATURES):
        row: dict[str, Cell] = {"feature": name, "differs": float(fit.differs[at]), "why": fit.reasons[at]}
        row |= {"typical": None, "share": None, "gamma": None}
        if at in fit.known:
            row["typical"] = _typical(fit, at)
            for key, turn in (("share", _share), ("gamma", float)):
                row |= {key: turn(fit.gamma[at]), f"{key}_low": turn(fit.gamma_low[at])}
                row |= {f"{key}_high": turn(fit.gamma_high[at])}
        rows.append(row)
    shown = columns if any(fit.reasons) else columns[:-1]
    return Table(shown, rows, caption="What style does")


def _both(found: Standing, plain: Scores, fit: Style) -> Table:
    sure = found.sure & fit.scored
    half = Z95 * fit.se
    equal = scores(fit.beta, fit.beta - half, fit.beta + half, fit.scored, sure)
    before, after = _order(found, np.array(plain.value)), _order(found, fit.beta)
    columns = (
        Column("rank", "rank at equal style", "count", "rank_best", "rank_worst"),
        Column("model", "model"),
        Column("score", "score at equal style", "number", "score_low", "score_high"),
        Column("plain_rank", "rank as is", "count", "plain_rank_best", "plain_rank_worst"),
        Column("plain", "score as is", "number", "plain_low", "plain_high"),
        Column("change", "change", "number", help="points that control for style adds"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "rank": rank,
            "model": found.named(model),
            **equal.ranks(model),
            **equal.cells(model),
            "plain_rank": before.index(model) + 1,
            **plain.ranks(model, "plain_rank"),
            **plain.cells(model, "plain"),
            "change": equal.value[model] - plain.value[model],
            "href": found.href(model),
        }
        for rank, model in enumerate(after, 1)
    ]
    return Table(columns, rows, caption="Models at equal style")
