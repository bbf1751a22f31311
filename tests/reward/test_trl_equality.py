"""The k-wise loss and its gradients against TRL's RewardTrainer on the same rankings, spelled out as pairs."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

from palate.config import RewardConfig
from palate.hardware import Hardware
from palate.models import load
from palate.reward.losses import centering_penalty, kwise_loss
from palate.reward.model import RewardModel
from palate.sequences import EncodedTree
from palate.training import Pairs

CPU = Hardware(torch.device("cpu"), torch.float32, 1)


@pytest.mark.slow
def test_loss_and_gradients(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig as TrlConfig
    from trl import RewardTrainer

    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(10, 400, (n,), generator=generator).tolist()
    trees = [
        EncodedTree(draw(p), [draw(c) for c in lengths], 0, 0)
        for p, lengths in ((7, (3, 9, 5, 4)), (4, (6, 2, 8, 8)))
    ]
    rankings = [[2, 0, 3, 1], [1, 3, 0, 2]]  # best first
    loaded = load(None, str(tiny_models["llama"]), CPU)
    model = RewardModel.new(loaded, lora_rank=4, max_length=512, seed=0)
    ours = {name: p for name, p in model.forward.model.named_parameters() if p.requires_grad}

    classifier = AutoModelForSequenceClassification.from_pretrained(
        tiny_models["llama"], num_labels=1, dtype=torch.float32
    )
    classifier.config.pad_token_id = 0
    settings = TrlConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, center_rewards_coefficient=0.01,
        report_to="none", disable_dropout=True,
    )  # fmt: skip
    loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    rows = [
        {"chosen_ids": tree.prompt + tree.completions[a], "rejected_ids": tree.prompt + tree.completions[b]}
        for tree, ranking in zip(trees, rankings, strict=True)
        for a, b in combinations(ranking, 2)
    ]
    peft = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], task_type="SEQ_CLS")  # fmt: skip
    trainer = RewardTrainer(
        classifier,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
        peft_config=peft,
    )
    theirs = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    for name, parameter in ours.items():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        theirs[name].data = parameter.data.clone()
    [head] = [p for name, p in theirs.items() if "score" in name]
    head.data = model.head.weight.data.clone()
    assert len(theirs) == len(ours) + 1

    expected = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    expected.backward()

    pairs = Pairs.of(
        [
            [{"winner": a, "loser": b, "tie": False, "weight": 1.0} for a, b in combinations(ranking, 2)]
            for ranking in rankings
        ],
        [4, 4],
        torch.device("cpu"),
    )
    scores = model.raw_scores(trees)
    loss = kwise_loss(scores, pairs.winners, pairs.losers, pairs.ties, pairs.weights)
    loss = (
        loss + RewardConfig().center * centering_penalty(scores, pairs.winners, pairs.losers, pairs.weights)
    ) / 12
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(model.head.weight.grad, head.grad, atol=1e-5, rtol=1e-4)
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-4)
