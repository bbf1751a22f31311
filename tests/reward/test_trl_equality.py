"""The k-wise loss and its gradients against TRL's RewardTrainer on the same rankings, spelled out as pairs."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

from palate.config import RewardConfig
from palate.hardware import Hardware
from palate.models import load
from palate.reward.losses import centering_penalty, kwise_loss, strength_margins
from palate.reward.model import RewardModel
from palate.sequences import EncodedTree
from palate.training import Pairs

CPU = Hardware(torch.device("cpu"), torch.float32, 1)


# the linear layers of each architecture, which peft knows as all-linear only for a language model with its head
LINEAR = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}


@pytest.mark.slow
@pytest.mark.parametrize("strengths", [False, True], ids=["plain", "margins"])
@pytest.mark.parametrize("name", LINEAR)
def test_loss_and_gradients(tiny_models: dict[str, Path], tmp_path: Path, name: str, strengths: bool) -> None:
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
    said = [3, 1] if strengths else [None, None]  # how much better, by ranking
    loaded = load(None, str(tiny_models[name]), CPU)
    model = RewardModel.new(loaded, "lora", max_length=512, seed=0, rank=4)
    ours = {key: p for key, p in model.forward.model.named_parameters() if p.requires_grad}

    classifier = AutoModelForSequenceClassification.from_pretrained(
        tiny_models[name], num_labels=1, dtype=torch.float32
    )
    classifier.config.pad_token_id = 0
    settings = TrlConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, center_rewards_coefficient=0.01,
        report_to="none", disable_dropout=True,
    )  # fmt: skip
    loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    rows = [
        {"chosen_ids": tree.prompt + tree.completions[a], "rejected_ids": tree.prompt + tree.completions[b]}
        | ({} if strength is None else {"margin": strength / 3})
        for tree, ranking, strength in zip(trees, rankings, said, strict=True)
        for a, b in combinations(ranking, 2)
    ]
    peft = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.0,
        target_modules=LINEAR[name],
        task_type="SEQ_CLS",
        fan_in_fan_out=name == "gpt2",
    )
    trainer = RewardTrainer(
        classifier,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
        peft_config=peft,
    )
    theirs = {key: p for key, p in trainer.model.named_parameters() if p.requires_grad}
    for key, parameter in ours.items():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        theirs[key].data = parameter.data.clone()
    [head] = [p for key, p in theirs.items() if "score" in key]
    head.data = model.head.weight.data.clone()
    assert len(theirs) == len(ours) + 1

    expected = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    expected.backward()

    pairs = Pairs.of(
        [
            [
                {"winner": a, "loser": b, "tie": False, "weight": 1.0, "strength": strength}
                for a, b in combinations(ranking, 2)
            ]
            for ranking, strength in zip(rankings, said, strict=True)
        ],
        [4, 4],
        torch.device("cpu"),
    )
    scores = model.raw_scores(trees)
    margins = strength_margins(pairs.strengths)
    loss = kwise_loss(scores, pairs.winners, pairs.losers, pairs.ties, pairs.weights, margins=margins)
    loss = (
        loss + RewardConfig().center * centering_penalty(scores, pairs.winners, pairs.losers, pairs.weights)
    ) / 12
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(model.head.weight.grad, head.grad, atol=1e-5, rtol=1e-4)
    for key, parameter in ours.items():
        torch.testing.assert_close(parameter.grad, theirs[key].grad, atol=1e-5, rtol=1e-4)
