"""Real people's files: what arrives is counted again here, by hand, straight from the files.

The files lie beside the checkout and are never part of the repository (see the `shared_data` fixture).
"""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from palate import importing
from palate.config import ImportConfig
from palate.data.preferences import rankings
from palate.data.records import split_of
from palate.project import Project

pytestmark = pytest.mark.slow


def imported(tmp_path: Path, file: Path) -> tuple[Project, dict[str, Any]]:
    project = Project.create(tmp_path / "project")
    done = importing.run(project, ImportConfig((file,)))
    again = importing.run(project, ImportConfig((file,)))
    assert [again.metrics[key] for key in again.metrics if key.endswith("_new")] == [0] * 6
    return project, done.metrics


def new(metrics: dict[str, Any]) -> tuple[int, ...]:
    return tuple(
        metrics[f"{name}_new"] for name in ("prompt", "completion", "comparison", "annotator", "vote")
    )


def table(project: Project, sql: str) -> list[tuple[Any, ...]]:
    with project.store() as store:
        return [tuple(row.values()) for row in store.rows(sql)]


def test_ukpconvarg(tmp_path: Path, shared_data: Path) -> None:
    """5,000 rows and 24,943 votes. Four rows put a text beside itself: 20 votes that prefer nothing. Some pairs
    come twice (twice posted arguments), so there are fewer comparisons than rows, and no vote is lost."""
    file = shared_data / "ukpconvarg1_share.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert (len(rows), sum(len(row["judgements"]) for row in rows)) == (5000, 24943)
    texts = [[answer["text"] for answer in row["responses"]] for row in rows]
    same = [row for row, (a, b) in zip(rows, texts, strict=True) if a.strip() == b.strip()]
    kept = [row for row in rows if row not in same]
    assert (len(same), sum(len(row["judgements"]) for row in same)) == (4, 20)
    prompts = {row["prompt"] for row in kept}
    answers = {(row["prompt"], answer["text"]) for row in kept for answer in row["responses"]}
    pairs = {(row["prompt"], frozenset(answer["text"] for answer in row["responses"])) for row in kept}
    people = {judged["annotator"] for row in kept for judged in row["judgements"]}
    votes = [judged for row in kept for judged in row["judgements"]]

    project, metrics = imported(tmp_path, file)
    assert (metrics["rows"], metrics["rejected"]) == (5000, 4)
    assert new(metrics) == (len(prompts), len(answers), len(pairs), len(people), len(votes))
    assert new(metrics) == (20, 670, 4932, len(people), 24923)

    ties = sum(judged["choice"] == "tie" for judged in votes)
    assert table(project, "SELECT verdict, count(*) FROM vote GROUP BY ALL ORDER BY 1") == [
        ("ranked", len(votes) - ties),
        ("tie", ties),
    ]
    left = sum(judged["choice"] == row["responses"][0]["id"] for row in kept for judged in row["judgements"])
    assert table(project, "SELECT count(*) FROM preference WHERE winner_shown_first AND NOT tie") == [(left,)]
    seconds = sum(judged["seconds"] for judged in votes)
    assert table(project, "SELECT sum(seconds_visible) FROM vote")[0][0] == pytest.approx(seconds)
    reasons = Counter(judged["reason"] for judged in votes)
    assert dict(table(project, "SELECT rationale, count(*) FROM vote GROUP BY 1")) == dict(reasons)
    groups = {row["group"] for row in kept}
    held_out = {group for group in groups if split_of(group) == "test"}
    assert set(table(project, "SELECT DISTINCT meta ->> '$.group', split FROM prompt")) == {
        (group, "test" if group in held_out else "train") for group in groups
    }
    with project.store() as store:
        frozen = rankings(store)
    assert frozen.num_rows == len(pairs)
    assert sum(len(pairs) for pairs in frozen["pairs"].to_pylist()) == len(votes)


def test_pandalm(tmp_path: Path, shared_data: Path) -> None:
    """999 rows by 3 annotators. Several rows hold the same two texts by other models: comparisons of their own."""
    file = shared_data / "pandalm_testset-v1.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    prompts = {(row["instruction"], row["input"]) for row in rows}
    answers, pairs, wins = set(), set(), Counter[str]()
    for row in rows:
        models = row["cmp_key"].split("_")
        asked = (row["instruction"], row["input"])
        both = [
            (asked, model, str(row[key]))
            for model, key in zip(models, ("response1", "response2"), strict=True)
        ]
        answers.update(both)
        pairs.add(frozenset(both))
        for number in (1, 2, 3):
            if row[f"annotator{number}"]:
                wins[models[row[f"annotator{number}"] - 1]] += 1

    project, metrics = imported(tmp_path, file)
    assert (metrics["rows"], metrics["rejected"]) == (999, 0)
    assert new(metrics) == (len(prompts), len(answers), len(pairs), 3, 2997)
    assert new(metrics)[2] == 999
    query = "SELECT c.model, count(*) FROM preference p JOIN completion c ON c.id = p.winner WHERE NOT tie GROUP BY 1"
    assert dict(table(project, query)) == dict(wins)
    names = table(project, "SELECT name FROM annotator ORDER BY name")
    assert names == [(f"pandalm_testset-v1.json:annotator{number}",) for number in (1, 2, 3)]


def test_oasst(tmp_path: Path, shared_data: Path) -> None:
    """100 trees: every user turn with replies is a prompt, ranked replies are one ranking."""
    file = shared_data / "oasst_en_100_tree.jsonl"
    trees = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked: set[tuple[str, ...]] = set()
    answers: set[tuple[tuple[str, ...], str, str]] = set()
    ranked: list[list[str]] = []

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> None:
        path = (*path, node["text"])
        if node["role"] == "prompter" and (node["replies"] or len(path) == 1):
            asked.add(path)
            for reply in node["replies"]:
                author = reply.get("model_name") or ("" if reply["synthetic"] else "human")
                answers.add((path, reply["text"], author))
            placed = [reply for reply in node["replies"] if reply.get("rank") is not None]
            if len(placed) > 1:
                ranked.append([r["text"] for r in sorted(placed, key=lambda reply: int(reply["rank"]))])
        for reply in node["replies"]:
            walk(reply, path)

    for tree in trees:
        walk(tree["prompt"], ())

    project, metrics = imported(tmp_path, file)
    assert (metrics["rows"], metrics["rejected"]) == (100, 0)
    assert new(metrics) == (len(asked), len(answers), len(ranked), 1, len(ranked))
    assert new(metrics) == (254, 687, 212, 1, 212)
    query = (
        "SELECT list(c.text ORDER BY u.place) FROM vote, unnest(list_transform(ranking, lambda t, i: "
        "{'id': t[1], 'place': i})) AS x(u) JOIN completion c ON c.id = u.id GROUP BY vote.id"
    )
    assert sorted(found for (found,) in table(project, query)) == sorted(ranked)
    pairs = sum(len(texts) * (len(texts) - 1) // 2 for texts in ranked)
    assert table(project, "SELECT count(*), count(winner_shown_first) FROM preference") == [(pairs, 0)]
    # turns of one tree share their beginning, so they share their split
    assert table(
        project, "SELECT max(n) FROM (SELECT count(DISTINCT split) n FROM prompt GROUP BY meta ->> '$.group')"
    ) == [(1,)]


def test_sft_and_prompts(tmp_path: Path, shared_data: Path) -> None:
    """4,803 rows, of which 1,632 have no response; a few prompts and two whole rows come twice."""
    file = shared_data / "sft_and_prompts.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    prompts = {row["prompt"] for row in rows}
    answered = {(row["prompt"], row["response"]) for row in rows if row["response"] is not None}

    project, metrics = imported(tmp_path, file)
    assert (metrics["rows"], metrics["rejected"]) == (4803, 0)
    assert new(metrics) == (len(prompts), len(answered), 0, 0, 0)
    assert new(metrics)[0] == 4788
    firsts: dict[str, str] = {}
    for row in rows:
        firsts.setdefault(row["prompt"], row["source"])
    assert dict(table(project, "SELECT source, count(*) FROM prompt GROUP BY 1")) == dict(
        Counter(firsts.values())
    )
    assert table(project, "SELECT DISTINCT role, model FROM completion") == [("demonstration", "human")]
