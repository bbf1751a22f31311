"""Annotators: does the place on the screen or the length decide, overall and for whom."""

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics import biases
from palate.labeling.statistics.assessment import slopes
from palate.labeling.statistics.formatting import interval, number
from palate.labeling.statistics.grouped import Floats, logistic, sums
from palate.labeling.statistics.habits import Habits, habits
from palate.labeling.statistics.judged import judged, lengths, units, weight_of
from palate.labeling.statistics.panels import Figure, Histogram, Panel
from palate.labeling.statistics.scope import Scope

LEAST = 20  # decisive votes from which an annotator is counted in the plots
HARDLY = 0.02  # a share this close to one half hardly matters, however sure it is
UNSURE = 0.2  # an interval this wide says nothing
_TWICE = float(np.log(2))
_READ = (
    "50 % is no bias: the place is drawn anew for each annotator, so the better answer is as often first as second. "
    "Longer answers may simply be better; a slope that differs between people can't be explained so."
)


def bias_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """The panel, made once until a vote comes in."""
    return facts.remember(("bias", scope, whole), lambda: _bias_panel(facts, scope, whole))


def _bias_panel(facts: Facts, scope: Scope, whole: bool) -> Panel:
    """Shares, slopes, and Bradley-Terry's advantage of the answer shown first; without `whole`, the side alone."""
    question = "Does position or length decide?"
    use = habits(facts, scope)
    side = biases.shares(np.array([use.first.sum()]), np.array([use.sided.sum()]))
    figures, plots, said = [_side_figure(use, side)], [_side_plot(use)], [_side_said(side)]
    if whole:
        more, plot, words = _length(facts, scope)
        figures += [_advantage(facts, scope), *more]
        plots += plot
        said.append(words)
    known = [figure for figure in figures if figure.value is not None]
    if not known and whole:
        missing = "No decisive vote whose display order or lengths are known yet: 100 give a first answer."
        return Panel("bias", question, read=_READ, missing=missing)
    return Panel(
        "bias",
        question,
        " ".join(words for words in said if words) or "No vote has a known display order; lengths follow.",
        _READ,
        figures=tuple(figures),
        plots=tuple(plot for plot in plots if plot is not None),
        notes=_notes(whole),
        late=not whole,
    )


def _notes(whole: bool) -> tuple[str, ...]:
    of_sides = (
        "A ranking of n answers counts as n − 1 votes, since its pairs hang together.",
        "In the plot, the second series is what chance alone would show for the same numbers of votes.",
    )
    if not whole:
        return of_sides
    return (
        *of_sides,
        (
            "The interval of the slope lets votes on one item hang together. Length here is not freed from quality: the "
            "Models section fits both at once."
        ),
    )


def _side_figure(use: Habits, side: biases.Estimates) -> Figure:
    label = "shown first wins"
    if not side.known[0]:
        return Figure(label, None, unit="share", why="no decisive vote whose display order is known")
    p = float(biases.even_chance(np.array([use.first.sum()]), side.n)[0])
    note = "exact binomial test: p < 0.001" if p < 0.001 else f"exact binomial test: p = {p:.3f}"
    return Figure(
        label,
        float(side.value[0]),
        float(side.low[0]),
        float(side.high[0]),
        round(float(side.n[0])),
        "decisive votes",
        "share",
        note=note,
    )


def _side_said(side: biases.Estimates) -> str:
    if not side.known[0]:
        return ""
    value, low, high = (float(each[0]) for each in (side.value, side.low, side.high))
    found = f"the answer shown first wins {number(value, 'share')} (95 %: {interval(low, high, 'share')})"
    return f"Position: {_verdict(value, low, high)}, {found}."


def _verdict(value: float, low: float, high: float) -> str:
    """Whether a share differs from one half."""
    if low <= 0.5 <= high:
        return "no sign of it" if high - low < UNSURE else "too few votes to tell"
    return "hardly" if abs(value - 0.5) < HARDLY else "yes" if value > 0.5 else "yes, the other way round"


def _advantage(facts: Facts, scope: Scope) -> Figure:
    label = "shown first wins, equal models"
    every, pairs = judged(facts, scope), units(facts)
    models = len(pairs.models)
    used = np.flatnonzero(every.first != 0)
    unit = every.unit[used]
    cell = (pairs.model_a[unit].astype(np.int64) * models + pairs.model_b[unit]) * 2 + (every.first[used] > 0)
    weight = weight_of(every.of[used])
    n = sums(cell, weight, 2 * models * models)
    wins = sums(cell, weight * (every.won[used] + 1) / 2, 2 * models * models)
    kept = np.flatnonzero(n)
    found = biases.first_shown(
        kept // 2 // max(models, 1), kept // 2 % max(models, 1), kept % 2 * 2 - 1, wins[kept], n[kept], models
    )
    if found is None:
        return Figure(label, None, unit="share", why="votes with a known display order don't tell")
    value, low, high = (float(logistic(np.array(each))) for each in (found.value, found.low, found.high))
    note = "Bradley-Terry with an advantage for the first; ties count half"
    return Figure(label, value, low, high, round(float(n.sum())), "votes", "share", note=note)


def _length(facts: Facts, scope: Scope) -> tuple[list[Figure], list[Histogram | None], str]:
    rows = lengths(facts, scope, "item")
    n, won = float(rows.n.sum()), float(rows.longer.sum())
    if not n:
        why = "no decisive vote on answers of different length"
        return [Figure("longer wins", None, unit="share", why=why)], [], ""
    share, slope = biases.shares(np.array([won]), np.array([n])), biases.clustered_slope(rows)
    of = "decisive votes on answers of different length"
    value, low, high = (float(each[0]) for each in (share.value, share.low, share.high))
    figures = [Figure("longer wins", value, low, high, round(n), of, "share")]
    words = f"the longer answer wins {number(value, 'share')}"
    if not slope.known[0]:
        why = "the longer answer always won, or never"
        return (
            [*figures, Figure("length slope", None, why=why)],
            [],
            f"Length: too few votes to tell, {words}.",
        )
    s, s_low, s_high = (float(each[0]) for each in (slope.value, slope.low, slope.high))
    twice, t_low, t_high = (float(each) for each in logistic(np.array([s, s_low, s_high]) * _TWICE))
    note = "log-odds per unit of ln(longer / shorter)"
    figures += [
        Figure("length slope", s, s_low, s_high, round(n), of, note=note),
        Figure("an answer twice as long wins", twice, t_low, t_high, round(n), of, "share"),
    ]
    span = f"one twice as long {number(twice, 'share')} (95 %: {interval(t_low, t_high, 'share')})"
    words = f"Length: {_verdict(twice, t_low, t_high)}, {words}, {span}."
    return figures, [_slope_plot(facts, scope)], words


def _side_plot(use: Habits) -> Histogram | None:
    """How annotators spread, beside how they would by chance."""
    from scipy.special import ndtr

    able = use.sided >= LEAST
    if not able.any():
        return None
    share, n = use.first[able] / use.sided[able], use.sided[able]
    edges = np.linspace(0, 1, 21)
    below: Floats = ndtr((edges[:, None] - 0.5) / (0.5 / np.sqrt(n)))
    below[0], below[-1] = 0, 1
    return Histogram(
        edges.tolist(),
        {
            "annotators": np.histogram(share, edges)[0].tolist(),
            "expected by chance": np.diff(below, axis=0).sum(1).round(2).tolist(),
        },
        "share of an annotator's votes for the answer shown first",
        "share",
        mark=0.5,
        mark_label="no bias",
    )


def _slope_plot(facts: Facts, scope: Scope) -> Histogram | None:
    slope, _, common = slopes(facts, scope)
    able = slope.known & (slope.n >= LEAST)
    if not able.any():
        return None
    value = np.clip(slope.value[able], -4, 4)
    edges = np.linspace(-4, 4, 33)
    counts = np.histogram(value, edges)[0]
    return Histogram(
        edges.tolist(),
        {"annotators": counts.tolist()},
        "length slope of an annotator (beyond 4 counted as 4)",
        mark=common,
        mark_label="all together",
    )
