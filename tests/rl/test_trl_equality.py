"""Our DPO loss and gradients against TRL's DPOTrainer: same pairs, LoRA that is not zero, float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from palate.hardware import Hardware
from palate.models import load, lora
from palate.rl.dpo import prepare
from palate.rl.objective import Objective
from palate.sequences import EncodedTree
from palate.tree import TreeForward

CPU = Hardware(torch.device("cpu"), torch.float32, 1)
LENGTHS = [(9, 5, 12), (3, 8, 2), (14, 7, 7), (5, 1, 3)]  # prompt, chosen, rejected


def rows() -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(10, 400, (n,), generator=generator).tolist()
    return [{"prompt_ids": draw(p), "chosen_ids": draw(c), "rejected_ids": draw(r)} for p, c, r in LENGTHS]


def fill(model: Any) -> dict[str, torch.nn.Parameter]:
    """The same non-zero numbers in every adapter of the same shape."""
    generator = torch.Generator().manual_seed(1)
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name in sorted(found):
        found[name].data = 0.2 * torch.randn(found[name].shape, generator=generator)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs_called", "objective"),
    [
        ("llama", {}, Objective(0.3)),
        ("qwen2", {}, Objective(0.3)),
        ("gpt2", {}, Objective(0.3)),
        ("llama", {"loss_type": ["ipo"]}, Objective(0.3, "ipo")),
        ("llama", {"loss_type": ["hinge"]}, Objective(0.3, "hinge")),
        ("llama", {"loss_type": ["robust"], "label_smoothing": 0.2}, Objective(0.3, "robust", 0.2)),
        ("llama", {"loss_type": ["sigmoid_norm"]}, Objective(0.3, length_normalised=True)),
    ],
)
def test_loss_and_gradients(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    name: str,
    theirs_called: dict[str, Any],
    objective: Objective,
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = DPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        beta=0.3,
        report_to="none",
        **theirs_called,
    )
    theirs_loaded, ours_loaded = (load(None, str(tiny_models[name]), CPU) for _ in range(2))
    text = Dataset.from_list([{"prompt": "the key", "chosen": " is here", "rejected": " is red"}])
    trainer = DPOTrainer(
        lora(theirs_loaded.model, 4, 8, seed=0),
        args=settings,
        train_dataset=text,
        processing_class=theirs_loaded.tokenizer,
    )
    reference_adapter = {n: p for n, p in trainer.model.named_parameters() if ".ref." in n}
    theirs = fill(trainer.model)
    for parameter in reference_adapter.values():  # their reference is the adapter's start; ours is the base
        parameter.data.zero_()
    batch = trainer.data_collator(rows())
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()

    plain = TreeForward.of(ours_loaded.model, CPU)
    trees = [EncodedTree(r["prompt_ids"], [r["chosen_ids"], r["rejected_ids"]], 0, 0) for r in rows()]
    pairs = [{"pairs": [{"winner": 0, "loser": 1, "tie": False, "weight": 1.0}]}] * len(trees)
    known = prepare(plain, pairs, trees, [range(len(trees))], 10_000, objective)
    policy = lora(ours_loaded.model, 4, 8, seed=0)
    ours = fill(policy)
    loss = objective.sums(replace(plain, model=policy), known, range(len(trees)))[0] / len(trees)
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert ours.keys() == theirs.keys()
    for key, parameter in ours.items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, theirs[key].grad, atol=1e-5, rtol=1e-4)
