"""`palate sft` teaches what it is shown, with the loss of plain rows, and leaves a model that others can load."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from palate.config import SftConfig, UserError
from palate.data.records import Completion, Prompt
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.sft import train
from palate.sft.dataset import Row
from palate.sft.fitting import fit, packs, validation_loss
from palate.sft.train import run

CPU = probe("cpu", "float32")
NAMES = ("gpt2", "qwen2", "llama")


def make_project(folder: Path, base: Path, rows: int = 24) -> Project:
    project = Project.create(folder, base=str(base))
    prompts = [
        Prompt(({"role": "user", "content": f"where is ball {i}"},), split="test" if i < 4 else "train")
        for i in range(rows)
    ]
    with project.store() as store:
        store.add_prompts(prompts)
        store.add_completions([Completion(p.id, "under the mat", role="demonstration") for p in prompts])
    return project


def config(project: Project, **changes: object) -> SftConfig:
    settings = {"epochs": 6.0, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "dtype": "float32"}
    return SftConfig(project.folder, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_full(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", tiny_models[name])
    record = run(project, config(project))
    metrics, folder = record.metrics, Path(record.path)
    assert (record.status, record.artefact["kind"], metrics["rows"], metrics["steps"]) == (
        "done",
        "model",
        20,
        15,
    )
    assert metrics["validation_loss"] < metrics["validation_loss_before"] - 1
    assert record.files["train"]["rows"] == 20 and record.files["test"]["rows"] == 4
    frozen = pq.read_table(folder / "data/train.parquet").to_pylist()
    assert {row["completion"] for row in frozen} == {"under the mat"}
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == list(range(1, 16))
    assert steps[-1]["loss"] < steps[0]["loss"]
    report = (folder / "report.md").read_text()
    assert report.count("**Before**") == report.count("**After**") == 4
    said = capsys.readouterr()
    assert "sft-1: 20 demonstrations to learn, 4 held out" in said.out
    assert "next: palate sample" in said.out
    assert "it/s" not in said.err and "Warning" not in said.err

    model = AutoModelForCausalLM.from_pretrained(folder / "model")  # plain transformers, as anyone would
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "where is ball 2"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=30, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(out, skip_special_tokens=True) == "under the mat"
    assert len(out) < 30


@pytest.mark.parametrize("name", NAMES)
def test_lora(tiny_models: dict[str, Path], tmp_path: Path, name: str) -> None:
    project = make_project(tmp_path / "project", tiny_models[name])
    record = run(project, config(project, method="lora", lora_rank=8, learning_rate=2e-2, epochs=8.0))
    assert record.artefact == {"kind": "adapter", "path": "adapter", "base": project.base}
    assert record.metrics["validation_loss"] < record.metrics["validation_loss_before"] - 0.2
    assert record.metrics["trainable_weights"] < 20_000
    merged = load(project, "sft-1", CPU)
    rows = train.encode(pq.read_table(Path(record.path) / "data/test.parquet"), merged.encoder, 1024)
    loss = validation_loss(merged.model, merged, rows)
    assert loss == pytest.approx(record.metrics["validation_loss"], abs=1e-4)
    again = run(project, config(project, base="sft-1", epochs=1.0))
    assert again.parents == ("sft-1",)
    assert again.metrics["validation_loss_before"] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_packed_rows_train_like_plain_rows(tiny_models: dict[str, Path], name: str) -> None:
    """One step on packed micro-batches moves the weights as one step on the plain mean over answer tokens."""
    loaded, plain = (load(None, str(tiny_models[name]), CPU) for _ in range(2))
    assert packs(loaded)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in (5, 40, 9, 17, 30, 8):
        ids = torch.randint(10, 390, (length,), generator=generator).tolist()
        rows.append(Row(ids, [-100] * 3 + ids[3:], False, False))
    losses: list[float] = []
    settings = SftConfig(epochs=1, batch_size=6, learning_rate=1e-3, warmup=0.0, device="cpu")
    fit(loaded.model, loaded, rows, settings, lambda step, figures: losses.append(figures.get("loss", 0.0)))

    total = torch.tensor(0.0)
    for row in rows:
        logits = plain.model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(
            logits, torch.tensor(row.labels[1:]), reduction="sum"
        )
    loss = total / sum(len(row.labels) - 3 for row in rows)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
    torch.optim.AdamW(plain.model.parameters(), lr=1e-3, weight_decay=0.0).step()
    assert losses[0] == pytest.approx(loss.item(), abs=1e-4)
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(loaded.model.parameters(), plain.model.parameters(), strict=True)
    ]
    # Adam divides by the gradient's size, so where a gradient is nearly zero its rounding shows
    assert sorted(moved)[len(moved) // 2] < 1e-5


def test_validation_loss_is_the_mean_over_tokens(tiny_models: dict[str, Path]) -> None:
    loaded = load(None, str(tiny_models["llama"]), CPU)
    rows = [
        Row(list(range(10, 20)), [-100] * 4 + list(range(14, 20)), False, False),
        Row([5, 6], [-100, 6], False, False),
    ]
    loss = validation_loss(loaded.model, loaded, rows)
    alone = [validation_loss(loaded.model, loaded, [row]) for row in rows]
    assert loss == pytest.approx((6 * alone[0] + alone[1]) / 7)  # type: ignore[operator]
    assert validation_loss(loaded.model, loaded, []) is None


def test_what_is_cut_is_said(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", tiny_models["qwen2"])
    run(project, config(project, epochs=1.0, max_length=24))
    assert (
        "of 20 rows, 20 prompts lost their start and 0 answers their end at 24 tokens"
        in capsys.readouterr().out
    )


def test_weights_that_do_not_move_are_an_error(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", tiny_models["gpt2"])
    with pytest.raises(UserError, match="no weight moved"):
        run(project, config(project, epochs=0.1, learning_rate=1e-50, warmup=0.0))
    assert project.run("sft-1").status == "failed"
    assert not (project.folder / "runs/sft-1/model").exists()


def test_ctrl_c_leaves_a_stopped_run_and_nothing_half_written(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project", tiny_models["gpt2"])

    def stop(loss: float, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.doctor, "check_finite", stop)
    with pytest.raises(KeyboardInterrupt):
        run(project, config(project))
    record = project.run("sft-1")
    assert (record.status, record.artefact) == ("stopped", {})
    assert sorted(p.name for p in Path(record.path).iterdir()) == [
        "checkpoints",
        "data",
        "metrics.jsonl",
        "run.json",
        "tensorboard",
    ]
    with pytest.raises(UserError, match="made no model"):
        load(project, "sft-1", CPU)
    assert project.latest("sft") is None


def test_only_held_out_rows(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", tiny_models["gpt2"], rows=4)
    with pytest.raises(UserError, match="all 4 rows belong to held-out prompts"):
        run(project, config(project))
