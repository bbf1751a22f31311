"""Scores of files, streams and comparisons: the same whatever the batch; a bad row is named; nothing is half written."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from palate.config import RewardConfig, RewardScoreConfig, UserError
from palate.hardware import probe
from palate.project import Project
from palate.reward import scoring, train
from palate.reward.scorers import open_scorer

Make = Callable[..., Project]
ROWS: list[dict[str, Any]] = [
    {"id": 1, "prompt": "where is 77?", "completion": "the mat 77"},
    {"id": 2, "prompt": [{"role": "user", "content": "where is 77?"}], "completions": ["the red ball 77", "a cat 77 sat down"]},
    {"id": 3, "messages": [{"role": "user", "content": "where is 77?"}, {"role": "assistant", "content": "the mat 77"}]},
    {"id": 4, "prompt": "where is 77?", "response": ""},
]  # fmt: skip


@pytest.fixture
def project(ranked_project: Make) -> Project:
    project = ranked_project(prompts=12, held_out=2)
    train.run(
        project,
        RewardConfig(
            project.folder, epochs=6, learning_rate=1e-2, batch_size=6, device="cpu", dtype="float32"
        ),
    )
    return project


def config(project: Project, *files: Path | str, **changes: Any) -> RewardScoreConfig:
    return RewardScoreConfig(
        tuple(map(Path, files)), project=project.folder, device="cpu", dtype="float32", **changes
    )


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def flat(rows: list[dict[str, Any]]) -> list[float]:
    return [value for row in rows for value in (row["rewards"] if "rewards" in row else [row["reward"]])]


def test_rows_keep_their_columns_and_gain_rewards(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "rows.jsonl", ROWS)
    scoring.run(project, config(project, file))
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [{k: v for k, v in row.items() if not k.startswith("reward")} for row in rows] == ROWS
    assert [set(row) - set(ROWS[i]) for i, row in enumerate(rows)] == [
        {"rewards", "rewards_std"} if "completions" in row else {"reward", "reward_std"} for row in ROWS
    ]
    assert rows[0]["reward_std"] > 0 and len(rows[1]["rewards_std"]) == 2
    mat, ball, cat, again, _ = flat(rows)
    assert mat > ball > cat and again == pytest.approx(mat, abs=1e-5)
    assert "scored 4 rows by reward-1" in said.err

    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    scoring.run(project, config(project, packed, batch_size=1, out=tmp_path / "out.jsonl"))  # alone: the same
    alone = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert flat(alone) == pytest.approx(flat(rows), abs=1e-4)
    assert capsys.readouterr().out == ""


def test_standard_input_is_a_stream(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.StringIO(json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1]) + "\nno json\n")
    )
    with pytest.raises(UserError, match="standard input, row 4: not JSON"):
        scoring.run(project, config(project, "-", batch_size=1))
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [
        1,
        2,
    ]  # whole rows until then


def test_comparisons_are_scored_once(project: Project) -> None:
    scoring.run(project, config(project, comparisons=True, batch_size=5))
    with project.store() as store:
        rows = store.rows("SELECT s.*, c.text FROM score s JOIN completion c ON c.id = s.completion_id")
        assert len(rows) == 48 and {row["run_id"] for row in rows} == {"reward-1"}
        assert all(row["std"] > 0 for row in rows)
        mats = [row["mean"] for row in rows if "mat" in row["text"]]
        assert min(mats) > max(row["mean"] for row in rows if "cat" in row["text"])
        store.write("DELETE FROM score WHERE mean < 0")
        left = store.value("SELECT count(*) FROM score")
    scorer, name = open_scorer(project, None, probe("cpu", "float32"))
    assert scoring.score_comparisons(project, scorer, name, 100) == 48 - left
    assert scoring.score_comparisons(project, scorer, name, 100) == 0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "x"}, "completion is missing"),
        ({"completion": "x"}, "the prompt is missing"),
        ({"prompt": "x", "completions": []}, "completions must be a list of answers"),
        ({"prompt": "x", "completion": float("nan")}, "completion is missing"),
        ({"prompt": "", "completion": "x"}, "the prompt is empty"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages must end with an assistant turn"),
    ],
)
def test_a_bad_row_is_named_and_leaves_no_file(
    project: Project, tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    file = written(tmp_path / "rows.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=f"rows.jsonl, row 2: {problem}"):
        scoring.run(project, config(project, file, out=tmp_path / "out.jsonl"))
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["rows.jsonl"]


def test_a_very_long_answer_is_cut_and_counted(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(
        tmp_path / "rows.jsonl", [{"prompt": "where is 77?", "completion": "the mat " * 12_500}, ROWS[0]]
    )
    scoring.run(project, config(project, file, max_length=64))
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert "1 texts were longer than the model takes and were cut" in said.err


def test_what_can_not_be_scored_says_why(
    project: Project, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    file = written(tmp_path / "rows.jsonl", ROWS)
    for given, problem in (
        (config(project), "name files to score"),
        (config(project, file, comparisons=True), "name files to score"),
        (config(project, tmp_path / "none.jsonl"), "none.jsonl does not exist"),
        (config(project, file, out=file), "is one of the files to score"),
        (config(project, file, batch_size=0), "--batch-size must be at least 1, got 0"),
        (config(project, file, reward="./nowhere"), "there is no folder ./nowhere"),
        (config(project, file, reward=str(tiny_models["llama"])), "is no model for sequence classification"),
        (config(project, file, max_length=1), "--max-length must be at least 8, got 1"),
    ):
        with pytest.raises(UserError, match=problem):
            scoring.run(project, given)
    empty = Project.create(tmp_path / "empty", base=str(tiny_models["llama"]))
    with pytest.raises(UserError, match="there is no finished reward run here"):
        scoring.run(empty, config(empty, file))


def test_what_is_not_known_counts_as_worse(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "rows.jsonl", ROWS[:2])
    found = []
    for pessimism in (0.0, 2.0):
        capsys.readouterr()
        scoring.run(project, config(project, file, pessimism=pessimism))
        found.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    plain, careful = found
    assert careful[0]["reward"] == pytest.approx(plain[0]["reward"] - 2 * plain[0]["reward_std"], abs=1e-5)
    assert careful[1]["rewards_std"] == pytest.approx(plain[1]["rewards_std"])
    with pytest.raises(UserError, match="--pessimism takes 0 to 100 standard deviations, got -1"):
        scoring.run(project, config(project, file, pessimism=-1))


def test_a_classifier_of_others_does_not_know(
    project: Project, tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "classifier"
    torch.manual_seed(0)
    small = LlamaConfig(vocab_size=420, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                        num_attention_heads=4, num_labels=1)  # fmt: skip
    LlamaForSequenceClassification(small).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_models["llama"]).save_pretrained(folder)
    file = written(tmp_path / "rows.jsonl", ROWS[:2])
    capsys.readouterr()
    scoring.run(project, config(project, file, reward=str(folder)))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(row) - set(ROWS[i]) for i, row in enumerate(rows)] == [{"reward"}, {"rewards"}]
    with pytest.raises(
        UserError, match="--pessimism needs a reward run of ours: .* does not say how sure it is"
    ):
        scoring.run(project, config(project, file, reward=str(folder), pessimism=1))
    scorer, name = open_scorer(project, str(folder), probe("cpu", "float32"))
    assert scoring.score_comparisons(project, scorer, name, 100) == 48
    with project.store() as store:
        assert store.value("SELECT count(*) FROM score WHERE std IS NULL") == 48


def test_a_run_that_does_not_know_says_nothing_of_it(
    ranked_project: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ranked_project(prompts=8, held_out=2)
    train.run(project, RewardConfig(project.folder, uncertainty="off", device="cpu", dtype="float32"))
    file = written(tmp_path / "rows.jsonl", ROWS[:2])
    capsys.readouterr()
    scoring.run(project, config(project, file))
    assert "_std" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"reward-1 does not know how sure it is \(--uncertainty off\)"):
        scoring.run(project, config(project, file, pessimism=1))
