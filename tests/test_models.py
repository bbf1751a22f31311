"""Any folder loads, adapters merge, and what is saved loads with plain transformers."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from palate.config import UserError
from palate.hardware import probe
from palate.models import load, lora, save_adapter, save_model
from palate.project import Project

NAMES = ("gpt2", "qwen2", "llama")
CPU = probe("cpu", "float32")
IDS = torch.arange(10, 30)[None]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project")


@pytest.mark.parametrize("name", NAMES)
def test_saved_model_loads_plainly_and_stops(tiny_models: dict[str, Path], tmp_path: Path, name: str) -> None:
    loaded = load(None, str(tiny_models[name]), CPU)
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    save_model(loaded, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(plain), logits(loaded.model))
    assert plain.generation_config.eos_token_id == list(loaded.encoder.stop_ids)
    assert plain.generation_config.pad_token_id not in loaded.encoder.stop_ids
    again = load(None, str(tmp_path / "model"), CPU)
    assert again.encoder.template_hash == loaded.encoder.template_hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("name", NAMES)
def test_lora_trains_every_decoder_layer_and_merges_on_load(
    tiny_models: dict[str, Path], project: Project, name: str
) -> None:
    loaded = load(project, str(tiny_models[name]), CPU)
    before = logits(loaded.model)
    model = lora(loaded.model, rank=4, alpha=8, seed=1)
    assert torch.equal(logits(model), before)
    trained = {n.split(".lora_")[0].rsplit(".", 1)[1] for n, p in model.named_parameters() if p.requires_grad}
    assert (
        trained
        == {
            "gpt2": {"c_attn", "c_proj", "c_fc"},
            "qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
            "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        }[name]
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(2))
    tuned = logits(model)
    assert not torch.allclose(tuned, before, atol=1e-2)
    with project.start("dpo", {}) as run:
        save_adapter(model, run.path / "adapter")
        run.update(artefact={"kind": "adapter", "path": "adapter", "base": str(tiny_models[name])})
    merged = load(project, "dpo-1", CPU)
    assert merged.ref == "dpo-1"
    assert torch.allclose(logits(merged.model), tuned, atol=1e-5)
    folder = load(None, str(run.path / "adapter"), CPU)  # the folder by itself is enough as well
    assert torch.allclose(logits(folder.model), tuned, atol=1e-5)


def test_same_seed_same_adapters(tiny_models: dict[str, Path]) -> None:
    state = torch.get_rng_state()
    first, second, other = (
        [
            p
            for n, p in lora(load(None, str(tiny_models["gpt2"]), CPU).model, 2, 4, s).named_parameters()
            if "lora_A" in n
        ]
        for s in (3, 3, 4)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_is_off(tiny_models: dict[str, Path]) -> None:
    model = load(None, str(tiny_models["gpt2"]), CPU).model.train()  # GPT-2's own config says 0.1
    assert torch.equal(logits(model), logits(model))


def test_runs_that_made_no_model(project: Project) -> None:
    with project.start("sft", {}):
        pass
    with project.start("reward", {}) as run:
        run.update(artefact={"kind": "reward", "path": "reward", "base": "builtin"})
    with pytest.raises(UserError, match=r"sft-1 \(status done\) made no model"):
        load(project, "sft-1", CPU)
    with pytest.raises(UserError, match="reward-1 is a reward model"):
        load(project, "reward-1", CPU)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text(json.dumps({"model_type": "gpt2"}))
    for ref, message in {
        str(tmp_path / "empty"): "holds no model",
        str(tmp_path / "broken"): "no causal language model that loads",
        str(tmp_path / "absent"): "there is no folder",
        "nobody/nothing": "'nobody/nothing' is neither a folder",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            load(None, ref, CPU)
        assert "\n" not in str(caught.value)


def test_a_stop_in_between_leaves_the_old_model(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(None, str(tiny_models["gpt2"]), CPU)
    save_model(loaded, tmp_path / "model")
    before = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}

    class Stopped(Exception): ...

    def stop(folder: str) -> None:
        (Path(folder) / "config.json").write_text("half")
        raise Stopped

    loaded.tokenizer.save_pretrained = stop
    with pytest.raises(Stopped):
        save_model(loaded, tmp_path / "model")
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
