"""Each method trains what it says, leaves something that later stages start from, and nothing else has moved."""

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from palate.config import SftConfig, UserError
from palate.freezing import head_weights, norm_weights
from palate.hardware import probe
from palate.models import load, load_four_bit, lora, save_adapter, save_model
from palate.project import Project
from palate.sft import methods
from palate.sft.methods import default_learning_rate, frozen_but, scale, trainee
from palate.sft.train import run
from tests.sft.test_train import config, make_project

CPU = probe("cpu", "float32")
NAMES = ("gpt2", "qwen2", "llama")
IDS = torch.arange(10, 30)[None]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["lora", "dora", "rslora"])
def test_an_adapter_merges_rightly_from_disk(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, method: str
) -> None:
    project = Project.create(tmp_path / "project")
    loaded = load(project, str(tiny_models[name]), CPU)
    before = logits(loaded.model)
    model = trainee(loaded, SftConfig(method=method, lora_rank=3))  # type: ignore[arg-type]
    assert torch.allclose(logits(model), before, atol=1e-5)  # dora divides by a length and multiplies again
    kinds = {n.split(".default")[0].rsplit(".", 1)[1] for n, p in model.named_parameters() if p.requires_grad}
    assert kinds == {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if method == "dora" else set())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    tuned = logits(model)
    assert (tuned - before).abs().max() > 0.05
    with project.start("sft", {}) as active:
        save_adapter(model, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": str(tiny_models[name])})
    merged = load(project, "sft-1", CPU)
    assert torch.allclose(logits(merged.model), tuned, atol=1e-5)
    assert not [n for n, _ in merged.model.named_parameters() if "lora" in n]


def test_how_much_an_adapter_adds(tiny_models: dict[str, Path]) -> None:
    known = {
        ("lora", None): (16, 32),
        ("dora", 4): (4, 8),
        ("rslora", 64): (64, 8),
        ("qlora", None): (64, 16),
    }
    for (method, rank), expected in known.items():
        assert scale(SftConfig(method=method, lora_rank=rank)) == expected  # type: ignore[arg-type]
    for method, factor in {"lora": 2.0, "rslora": 1.0}.items():
        settings = SftConfig(method=method, lora_rank=64)  # type: ignore[arg-type]
        model = trainee(load(None, str(tiny_models["llama"]), CPU), settings)
        factors = {m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)}
        assert factors == {factor}


@pytest.mark.parametrize("name", NAMES)
def test_what_freeze_trains(tiny_models: dict[str, Path], name: str) -> None:
    def chosen(**settings: object) -> set[str]:
        model = load(None, str(tiny_models[name]), CPU).model
        return set(frozen_but(model, SftConfig(method="freeze", **settings)))  # type: ignore[arg-type]

    last, norms, head = (
        chosen(layers=1),
        chosen(layers=0, train=("norms",)),
        chosen(layers=0, train=("head",)),
    )
    stacks = {".".join(one.split(".")[:3]) for one in last} - {
        "transformer.ln_f.weight",
        "transformer.ln_f.bias",
    }
    assert stacks - {"model.norm.weight"} == {"transformer.h.1" if name == "gpt2" else "model.layers.1"}
    assert len(norms) == (10 if name == "gpt2" else 5) and all("norm" in n or "ln_" in n for n in norms)
    assert head == {"lm_head.weight"}
    assert chosen(layers=1, train=("norms", "head")) == last | norms | head
    assert chosen(layers=2) > last


@pytest.mark.parametrize("name", NAMES)
def test_a_tied_head_gets_weights_of_its_own(tiny_models: dict[str, Path], tmp_path: Path, name: str) -> None:
    loaded = load(None, str(tiny_models[name]), CPU)
    loaded.model.config.tie_word_embeddings = True
    loaded.model.tie_weights()
    save_model(loaded, tmp_path / "tied")
    loaded = load(None, str(tmp_path / "tied"), CPU)
    embeddings = loaded.model.get_input_embeddings().weight
    assert loaded.model.get_output_embeddings().weight is embeddings
    before, kept, count = logits(loaded.model), embeddings.detach().clone(), loaded.weights
    chosen = head_weights(loaded.model)
    assert set(chosen) == {"lm_head.weight"} and loaded.weights == count + embeddings.numel()
    assert torch.equal(logits(loaded.model), before)
    chosen["lm_head.weight"].data += 0.1
    tuned = logits(loaded.model)
    assert torch.equal(embeddings, kept) and not torch.allclose(tuned, before)
    save_model(loaded, tmp_path / "untied")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "untied")
    assert torch.equal(logits(plain), tuned)
    again = load(None, str(tmp_path / "untied"), CPU)
    assert torch.equal(logits(again.model), tuned)
    assert (
        head_weights(again.model).keys() == {"lm_head.weight"} and again.weights == count + embeddings.numel()
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "dora", "learning_rate": 2e-2},
        {"method": "rslora", "lora_rank": 32, "learning_rate": 2e-2},
        {"method": "freeze"},
        {"method": "freeze", "layers": 0, "train": ("norms",), "learning_rate": 5e-2},
        {"method": "freeze", "layers": 0, "train": ("head",)},
    ],
    ids=["dora", "rslora", "layers", "norms", "head"],
)
def test_a_run_of_each(tiny_models: dict[str, Path], tmp_path: Path, settings: dict[str, object]) -> None:
    project = make_project(tmp_path / "project", tiny_models["llama"])
    record = run(project, config(project, epochs=6.0, **settings))
    metrics = record.metrics
    assert metrics["validation_loss"] < metrics["validation_loss_before"] - 0.1
    base, tuned = load(None, project.base, CPU).model, load(project, record.id, CPU).model
    moved = {
        name
        for (name, old), new in zip(base.named_parameters(), tuned.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    if settings["method"] == "freeze":
        assert moved == set(frozen_but(base, config(project, **settings)))
        assert metrics["trainable_weights"] == sum(dict(base.named_parameters())[n].numel() for n in moved)
    again = run(project, config(project, base=record.id, epochs=0.5, method="lora"))
    assert again.metrics["validation_loss_before"] == pytest.approx(metrics["validation_loss"], abs=1e-4)


def test_what_can_not_be_done_is_said_before_anything_is_written(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project", tiny_models["llama"])
    for settings, message in (
        ({"method": "qlora"}, "takes a CUDA GPU, and this trains on cpu: use --method lora"),
        ({"method": "freeze", "layers": 0}, "trains nothing: add --train head"),
        ({"method": "lora", "lora_rank": 0}, "--lora-rank 0: it takes 1 or more"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            run(project, config(project, **settings))
        assert "\n" not in str(caught.value)
    assert not project.runs()
    with pytest.raises(UserError, match="--layers takes 0 to 2"):
        run(project, config(project, method="freeze", layers=3))


def test_default_rates() -> None:
    rates = {
        (method, size): default_learning_rate(size, SftConfig(method=method))  # type: ignore[arg-type]
        for method in ("full", "lora", "qlora", "dora", "rslora")
        for size in (3_700_000, 8_000_000_000, 70_000_000_000)
    }
    assert [rates[m, 3_700_000] for m in ("full", "lora", "dora", "rslora")] == [3e-4, 2e-3, 2e-3, 2e-3]
    assert [rates[m, 8_000_000_000] for m in ("full", "lora", "qlora")] == [2e-5, 2e-4, 2e-4]
    assert rates["qlora", 70_000_000_000] == 1e-4
    freeze = [
        default_learning_rate(size, SftConfig(method="freeze", layers=layers, train=train))  # type: ignore[arg-type]
        for layers, train in (
            (2, ()),
            (1, ("norms", "head")),
            (0, ("norms",)),
            (0, ("head",)),
            (0, ("norms", "head")),
        )
        for size in (3_700_000, 8_000_000_000)
    ]
    assert freeze == pytest.approx([1e-3, 1e-4, 1e-3, 1e-4, 3e-2, 3e-3, 2e-3, 2e-4, 2e-3, 2e-4])


def test_adapters_draw_from_their_seed_alone(tiny_models: dict[str, Path]) -> None:
    first, second = (
        dict(
            lora(
                load(None, str(tiny_models["qwen2"]), CPU).model, 4, 8, 3, magnitudes=True
            ).named_parameters()
        )
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(norm_weights(load(None, str(tiny_models["qwen2"]), CPU).model)) == 5


def test_qlora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bitsandbytes is installed: its CPU kernels stand in for CUDA, on a base that is itself an adapter run."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(methods, "check_four_bit", lambda hardware: None)
    project = make_project(tmp_path / "project", Path("builtin"))
    first = run(project, config(project, method="lora", epochs=1.0))
    record = run(project, config(project, base=first.id, method="qlora", lora_rank=8, epochs=2.0))
    assert record.metrics["validation_loss"] < record.metrics["validation_loss_before"] - 0.1
    assert record.artefact == {"kind": "adapter", "path": "adapter", "base": "sft-1"}
    held = load_four_bit(project, "sft-1", CPU)
    linear = [m for m in held.model.modules() if type(m).__name__ == "Linear4bit"]
    assert len(linear) == 28 and not any(p.requires_grad for p in held.model.parameters())
    assert held.weights == load(project, "sft-1", CPU).weights
    merged = load(project, record.id, CPU)  # in full precision: near what was trained, not equal
    assert {p.dtype for p in merged.model.parameters()} == {torch.float32}
    again = run(project, config(project, base=record.id, epochs=0.5, method="freeze"))
    assert again.metrics["validation_loss_before"] == pytest.approx(
        record.metrics["validation_loss"], abs=0.1
    )
