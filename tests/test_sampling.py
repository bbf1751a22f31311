"""`palate sample` stores different answers with where they come from, and one comparison per prompt."""

import json
from pathlib import Path

import pytest

from palate.config import SampleConfig, UserError
from palate.data.records import Prompt
from palate.project import Project
from palate.sampling import run


@pytest.fixture
def project(tmp_path: Path, tiny_models: dict[str, Path]) -> Project:
    project = Project.create(tmp_path / "project", base=str(tiny_models["qwen2"]))
    with project.store() as store:
        messages = [({"role": "user", "content": f"where is ball {i}"},) for i in range(7)]
        store.add_prompts([Prompt(m, source="a.jsonl", split="train") for m in messages[:5]])
        store.add_prompts([Prompt(m, source="b.jsonl", split="test") for m in messages[5:]])
    return project


def test_stores_completions_with_their_origin(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    config = SampleConfig(project.folder, k=3, max_new_tokens=6, device="cpu", dtype="float32")
    record = run(project, config)
    assert (record.status, record.parents, record.metrics["prompts"]) == ("done", (), 5)
    with project.store() as store:
        rows = store.rows("SELECT * FROM completion")
        assert len(rows) == record.metrics["completions"] == 15
        assert {(r["model"], r["run_id"], r["role"]) for r in rows} == {(project.base, "sample-1", "sample")}
        settings = [json.loads(r["sampling"]) for r in rows]
        assert settings == [{"max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0}] * 15
        assert all(r["seed"] is not None and r["finish_reason"] in ("stop", "length") for r in rows)
        comparisons = store.rows("SELECT c.*, p.split FROM comparison c JOIN prompt p ON p.id = c.prompt_id")
    assert len(comparisons) == 5
    assert {(c["strategy"], c["propensity"], c["purpose"], c["split"]) for c in comparisons} == {
        ("random", 1.0, "train", "train")
    }
    assert all(len(set(c["completion_ids"])) == 3 for c in comparisons)
    said = capsys.readouterr().out
    assert "sample-1: 3 completions for each of 5 prompts" in said
    assert "next: palate label" in said


def test_same_seed_adds_nothing_another_seed_does(project: Project) -> None:
    config = SampleConfig(project.folder, k=2, max_new_tokens=5, device="cpu", dtype="float32")
    run(project, config)
    assert run(project, config).metrics["completions"] == 0
    other = SampleConfig(project.folder, k=2, max_new_tokens=5, seed=1, device="cpu", dtype="float32")
    assert run(project, other).metrics["comparisons"] == 5


def test_models_and_temperatures_take_turns(project: Project, tiny_models: dict[str, Path]) -> None:
    models = (str(tiny_models["gpt2"]), str(tiny_models["qwen2"]))
    config = SampleConfig(
        project.folder, k=4, models=models, temperature=(0.7, 1.2), max_new_tokens=5, device="cpu"
    )  # fmt: skip
    run(project, config)
    with project.store() as store:
        rows = store.rows(
            "SELECT prompt_id, list(DISTINCT model || sampling) AS arms FROM completion GROUP BY 1"
        )
    assert [len(row["arms"]) for row in rows] == [4] * 5


def test_prompts_without_comparison_come_first(project: Project) -> None:
    first = SampleConfig(project.folder, k=2, limit=2, max_new_tokens=4, device="cpu")
    for _ in range(2):
        run(project, first)
    with project.store() as store:
        assert store.value("SELECT count(DISTINCT prompt_id) FROM comparison") == 4


def test_split_and_source(project: Project) -> None:
    config = SampleConfig(project.folder, k=2, split="all", source="b.jsonl", max_new_tokens=4, device="cpu")
    assert run(project, config).metrics["prompts"] == 2
    with pytest.raises(UserError, match=r"from source 'c' \(known: a.jsonl, b.jsonl\)"):
        run(project, SampleConfig(project.folder, source="c"))


def test_a_model_that_repeats_itself_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    config = SampleConfig(project.folder, k=3, temperature=(0.0,), max_new_tokens=6, device="cpu")
    record = run(project, config)
    assert record.metrics["comparisons"] == 0
    assert record.metrics["completions"] <= 5
    assert "raise --temperature" in capsys.readouterr().out


def test_every_pair_of_a_prompt_to_choose_from(project: Project) -> None:
    run(
        project,
        SampleConfig(project.folder, k=3, rank=(3, 2), max_new_tokens=6, device="cpu", dtype="float32"),
    )
    with project.store() as store:
        sizes = store.rows(
            "SELECT len(completion_ids) AS k, count(*) AS n FROM comparison GROUP BY 1 ORDER BY 1"
        )
        pairs = store.value(
            "SELECT count(DISTINCT completion_ids) FROM comparison WHERE len(completion_ids) = 2"
        )
    assert (sizes, pairs) == ([{"k": 2, "n": 15}, {"k": 3, "n": 5}], 15)
    with pytest.raises(UserError, match=r"--rank takes 2 to -k \(3\), got 2 4"):
        run(project, SampleConfig(project.folder, k=3, rank=(2, 4)))


def test_k_out_of_range(project: Project) -> None:
    with pytest.raises(UserError, match="2 to 9"):
        run(project, SampleConfig(project.folder, k=1))


def test_ctrl_c_keeps_finished_chunks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from palate import sampling

    save, saved = sampling._save, []

    def stop_after_one(*arguments: object) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(save(*arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(sampling, "_save", stop_after_one)
    config = SampleConfig(
        project.folder, k=2, batch_size=2, max_new_tokens=4, device="cpu"
    )  # 4 prompts a chunk
    with pytest.raises(KeyboardInterrupt):
        run(project, config)
    assert project.run("sample-1").status == "stopped"
    with project.store() as store:
        assert store.counts()["completion"] == 8
        assert store.counts()["comparison"] == 4
