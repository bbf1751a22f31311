"""Rankings per second of reward training: `palate reward` (k-wise) against TRL's RewardTrainer (pairs).

    python benchmarks/reward_speed.py [--quick]

The same rankings of K = 2, 4 and 8 completions, the same random Llama, LoRA of rank 16 on all linear layers, the same
number of optimiser steps. TRL sees all K (K - 1) / 2 pairs of a ranking, a batch holding as many rankings as ours. It
runs in two settings, as it comes on a CPU (bf16 autocast, gradient checkpointing) and without checkpointing; the
faster one counts. `memory_k4` is peak memory, peer / ours.
"""

import sys
import tempfile
import time
from itertools import combinations
from typing import Any

import preference_pairs as shared
from common import arguments, finish, in_turn, medians, tell

RANKINGS, BATCH, VOCABULARY = {2: 96, 4: 48, 8: 24}, {2: 8, 4: 4, 8: 2}, 4096  # BATCH in rankings
PROMPT, COMPLETION = 34, 99  # mean tokens
PEERS: dict[str, dict[str, bool]] = {"default": {}, "bf16": {"gradient_checkpointing": False}}


def ours(model: Any, rows: list[dict[str, Any]], k: int) -> dict[str, float]:
    """The functions `palate reward` calls, from the moment its rows are encoded."""
    from palate.config import RewardConfig
    from palate.hardware import probe
    from palate.models import Loaded
    from palate.reward.fitting import train_on
    from palate.reward.model import RewardModel
    from palate.sequences import EncodedTree

    trees = [EncodedTree(row["prompt"], row["completions"], 0, 0) for row in rows]
    pairs = [
        {"winner": a, "loser": b, "tie": False, "strength": None, "weight": 1.0}
        for a, b in combinations(range(k), 2)
    ]
    loaded = Loaded(model, None, None, "", probe("cpu", "auto"))  # type: ignore[arg-type] # no text here
    config = RewardConfig(batch_size=BATCH[k], learning_rate=1e-4, center=0.0)
    start = time.perf_counter()
    reward = RewardModel.new(loaded, "lora", 4096, seed=0)
    history = train_on(reward, [{"pairs": pairs}] * len(rows), trees, config, lambda *_, **__: None)
    return {"rankings_per_second": len(rows) / (time.perf_counter() - start), "steps": len(history)}


def peer(model: Any, rows: list[dict[str, Any]], k: int, settings: dict[str, bool]) -> dict[str, float]:
    """TRL's trainer on the same token ids."""
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    model.config.num_labels = 1
    classifier = LlamaForSequenceClassification(model.config)
    classifier.model.load_state_dict(model.model.state_dict())
    pairs = [
        {
            "chosen_ids": row["prompt"] + row["completions"][a],
            "rejected_ids": row["prompt"] + row["completions"][b],
        }
        for row in rows
        for a, b in combinations(range(k), 2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder, use_cpu=True, per_device_train_batch_size=BATCH[k] * k * (k - 1) // 2, num_train_epochs=1,
            learning_rate=1e-4, max_length=None, save_strategy="no", disable_tqdm=True, report_to="none", **settings,
        )  # fmt: skip
        trainer = RewardTrainer(
            classifier, args=config, train_dataset=Dataset.from_list(pairs),
            processing_class=shared.tokenizer(VOCABULARY), peft_config=shared.lora_config("SEQ_CLS"),
        )  # fmt: skip
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return {"rankings_per_second": len(rows) / seconds, "steps": trainer.state.global_step}


def main() -> None:
    """Every side in turn for each K, and the ratios."""
    given = arguments("Reward models: palate against TRL")
    count = {k: 2 * BATCH[k] if given.quick else RANKINGS[k] for k in RANKINGS}
    if given.side:
        k = int(given.case)
        model = shared.tiny_llama(VOCABULARY)
        rows = shared.random_rankings(count[k], k, PROMPT, COMPLETION, VOCABULARY)
        tell(ours(model, rows, k) if given.side == "ours" else peer(model, rows, k, PEERS[given.side]))
        return
    ratios: dict[str, float] = {}
    mine: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for k in RANKINGS:
        quick = ["--quick"] if given.quick else []
        found = in_turn(__file__, ["ours", *PEERS], given.repeats, "--case", str(k), *quick)
        case, mine[case] = f"k{k}", medians(found["ours"])
        sides = {side: medians(found[side]) for side in PEERS}
        fastest = max(sides, key=lambda side: sides[side]["rankings_per_second"])
        theirs |= {case: sides[fastest], **{f"{case}_{side}": figures for side, figures in sides.items()}}
        ratios[case] = mine[case]["rankings_per_second"] / sides[fastest]["rankings_per_second"]
        ratios[f"memory_{case}"] = (
            min(side["peak_rss_mb"] for side in sides.values()) / mine[case]["peak_rss_mb"]
        )
        if {side["steps"] for side in sides.values()} != {mine[case]["steps"]}:
            sys.exit(f"K = {k}: the sides did not take the same number of steps")
    finish(
        "reward_speed", ratios, mine, theirs,
        {
            "rankings": count, "batch": BATCH, "prompt": PROMPT, "completion": COMPLETION,
            "model": f"Llama 6 x 256, vocabulary {VOCABULARY}", "lora": "rank 16, all linear", "repeats": given.repeats,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
