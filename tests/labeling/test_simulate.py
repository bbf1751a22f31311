"""Rule-based annotators: marked, reproducible, and their habits show up in the statistics."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from palate.config import SimulateConfig, UserError
from palate.data import demo
from palate.data.records import Comparison, Completion, Prompt
from palate.labeling import simulate, stats
from palate.labeling.ballots import Item
from palate.labeling.simulate import judge
from palate.labeling.statistics.panels import Figure
from palate.labeling.statistics.scope import Scope
from palate.project import Project
from tests.labeling.conftest import fill

DETAILS = (
    "masterpiece, best quality, 8k",
    "nice",
    "golden hour light, 35mm lens",
    "wet cracked stone, rusted iron, a worn oak door",
    "low sun through dusty glass, oil on canvas, polished brass",
    "highly detailed, trending",
    "rain on a tin roof",
    "film grain, moonlight on frosted slate",
)


def demo_project(folder: Path, n: int, k: int) -> Project:
    """Comparisons of image prompts for the demo's ideas, different enough for a taste to tell apart."""
    project = Project.create(folder)
    ideas, rng = demo.ideas(n, seed=2), random.Random(2)
    prompts = [Prompt(({"role": "user", "content": demo.instruction(idea)},)) for idea in ideas]
    groups = [
        [Completion(p.id, f"{idea}, {detail}", model="sft-1") for detail in rng.sample(DETAILS, k)]
        for idea, p in zip(ideas, prompts, strict=True)
    ]
    with project.store() as store:
        store.add_prompts(prompts)
        store.add_completions([c for group in groups for c in group])
        store.add_comparisons([Comparison(g[0].prompt_id, tuple(c.id for c in g)) for g in groups])
    return project


def figures(project: Project) -> dict[str, Figure]:
    """What Review says of the votes of rules, by the figures' names."""
    with project.store() as store:
        found = stats.sections(store, Scope("rule"), ["agreement", "annotators"])
        return {figure.label: figure for one in found for panel in one.panels for figure in panel.figures}


def test_votes_are_marked_as_rule_and_carry_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = demo_project(tmp_path / "p", n=40, k=4)
    run = simulate.run(project, SimulateConfig(project.folder, seed=3))
    assert (run.stage, run.status, run.metrics["votes"]) == ("simulate", "done", 44)
    assert run.metrics["agrees_with_taste"] > 0.75
    assert figures(project)["percent agreement"].n == 4  # a tenth was answered twice
    with project.store() as store:
        by = store.rows(
            "SELECT annotator_kind AS kind, count(DISTINCT annotator_id) AS n FROM current_vote GROUP BY 1"
        )
        assert by == [{"kind": "rule", "n": 4}]
        assert store.rows("SELECT DISTINCT run_id FROM vote") == [{"run_id": run.id}]
    assert "palate reward" in capsys.readouterr().out
    with pytest.raises(UserError, match="palate sample"):
        simulate.run(project, SimulateConfig(project.folder))


def test_the_same_seed_gives_the_same_votes(tmp_path: Path) -> None:
    votes = []
    for name in ("one", "two"):
        project = demo_project(tmp_path / name, n=30, k=3)
        simulate.run(project, SimulateConfig(project.folder, seed=5, noise=1.0))
        with project.store() as store:
            votes.append(store.rows("SELECT id, assignment_id, verdict, ranking FROM vote ORDER BY id"))
    assert votes[0] == votes[1]


def test_without_noise_the_taste_is_followed(tmp_path: Path) -> None:
    project = demo_project(tmp_path / "p", n=30, k=4)
    run = simulate.run(project, SimulateConfig(project.folder, noise=0.0, tie_margin=0.0))
    assert run.metrics["agrees_with_taste"] == 1.0


@pytest.mark.slow
def test_habits_show_up_in_the_statistics(tmp_path: Path) -> None:
    def habits(name: str, **habit: float) -> tuple[Figure, float, float]:
        """(how often what was shown first wins, alpha, the share that a taste without noise would say)"""
        project = demo_project(tmp_path / name, n=300, k=2)
        run = simulate.run(project, SimulateConfig(project.folder, overlap=0.3, **habit))  # type: ignore[arg-type]
        found = figures(project)
        alpha = found["Krippendorff's alpha"].value
        assert alpha is not None
        return found["shown first wins"], alpha, run.metrics["agrees_with_taste"]

    # one 95 % interval misses the truth in one of twenty seeds, so four seeds are taken together
    plains = [habits(f"plain {seed}", seed=seed) for seed in range(4)]
    won = sum((first.value or 0) * (first.n or 0) for first, _, _ in plains)
    decided = sum(first.n or 0 for first, _, _ in plains)
    assert abs(won / decided - 0.5) < 3 * 0.5 / decided**0.5
    _, plain_alpha, plain_share = plains[0]
    biased, _, _ = habits("biased", side_bias=1.0)
    _, lazy_alpha, lazy_share = habits("lazy", laziness=0.8)
    assert (biased.low or 0) > 0.55
    assert lazy_share < 0.7 < plain_share
    assert lazy_alpha < 0.35 < plain_alpha


def test_a_thousand_votes_take_seconds(tmp_path: Path) -> None:
    project = demo_project(tmp_path / "p", n=250, k=4)
    start = time.perf_counter()
    run = simulate.run(project, SimulateConfig(project.folder, overlap=0.0))
    assert run.metrics["votes"] == 250
    assert time.perf_counter() - start < 20  # 2 s on a free core; the bound is for a crowded machine


def test_a_given_number_of_votes_and_a_single_annotator(tmp_path: Path) -> None:
    project = demo_project(tmp_path / "p", n=20, k=2)
    assert simulate.run(project, SimulateConfig(project.folder, votes=7)).metrics["votes"] == 7
    with project.store() as store:
        free = store.value(
            "SELECT count(*) FROM comparison WHERE overlap > "
            "(SELECT count(*) FROM current_vote v WHERE v.comparison_id = comparison.id)"
        )
    alone = simulate.run(project, SimulateConfig(project.folder, annotators=1, overlap=0.0, seed=1))
    assert 13 <= alone.metrics["votes"] == free


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"taste": "sweet"}, "there is no taste 'sweet'; there are vivid"),
        ({"annotators": 0}, "at least 1"),
        ({"overlap": 1.5}, "between 0 and 1"),
        ({"noise": -1.0}, "can't be negative"),
        ({"votes": 0}, "at least 1"),
    ],
)
def test_settings_are_checked(project: Project, config: dict[str, Any], why: str) -> None:
    with project.store() as store:
        fill(store)
    with pytest.raises(UserError, match=why):
        simulate.run(project, SimulateConfig(project.folder, **config))


def test_a_taste_without_opinion_is_refused(project: Project) -> None:
    with project.store() as store:
        fill(store, texts=("same", "Same", "", ""))
        store.write("UPDATE completion SET text = 'same'")
    with pytest.raises(UserError, match="finds all"):
        simulate.run(project, SimulateConfig(project.folder))


def test_judging_by_hand() -> None:
    scores = {"good": 2.0, "fair": 1.0, "near": 0.95, "poor": -1.0}
    item = Item("a", ({"role": "user", "content": "idea"},), tuple(zip("ABCD", scores, strict=True)))
    exact = SimulateConfig(noise=0.0, tie_margin=0.1)

    def ask(item: Item, config: SimulateConfig) -> Any:
        return judge(item, lambda _, text: scores[text], 1.0, config, np.random.default_rng(0))

    assert ask(item, exact).ranking == (("A",), ("B", "C"), ("D",))
    assert ask(item, SimulateConfig(noise=0.0, tie_margin=9.0)).verdict == "tie"
    pair = Item("a", item.messages, (("A", "near"), ("B", "fair")))
    assert ask(pair, SimulateConfig(noise=0.0, tie_margin=0.01)).ranking == (("B",), ("A",))
    assert ask(pair, SimulateConfig(noise=0.0, side_bias=1.0)).ranking == (("A",), ("B",))
    strengths = [
        ask(Item("a", item.messages, (("A", "good"), ("B", other))), exact).strength
        for other in ("fair", "poor")
    ]
    assert strengths == [2, 3]


def test_a_reward_votes_by_its_stored_scores(tmp_path: Path) -> None:
    project = demo_project(tmp_path / "p", n=20, k=3)
    with pytest.raises(UserError, match=r"60 of 60 answers have no score by reward-1: palate reward score"):
        simulate.run(project, SimulateConfig(project.folder, scores="reward-1"))
    with project.store() as store:
        ids = [row["id"] for row in store.rows("SELECT id FROM completion ORDER BY id")]
        table = {"completion_id": ids, "run_id": ["reward-1"] * 60, "mean": [float(i) for i in range(60)]}
        store.add_table("score", pa.table({**table, "std": pa.nulls(60, pa.float64())}))
    run = simulate.run(project, SimulateConfig(project.folder, scores="reward-1", tie_margin=0.0))
    assert run.parents == ("reward-1",) and run.metrics["agrees_with_taste"] == 1.0
    with project.store() as store:
        voters = store.rows(
            "SELECT DISTINCT annotator_kind AS kind, annotator_name AS name FROM current_vote"
        )
        assert voters == [{"kind": "model", "name": "reward-1"}]
        score = {one: float(i) for i, one in enumerate(ids)}
        votes = store.rows("SELECT ranking FROM current_vote")
    assert len(votes) == 20
    for vote in votes:
        order = [score[tier[0]] for tier in vote["ranking"]]
        assert order == sorted(order, reverse=True) and len(order) == 3
