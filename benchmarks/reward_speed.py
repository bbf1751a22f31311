"""Rankings per second of reward training: `palate reward` (k-wise) against TRL's RewardTrainer (pairs).

    python benchmarks/reward_speed.py [--quick]

The same rankings of K = 2, 4 and 8 completions (prompts of 256 tokens, completions of 64 to 128), the same random Llama,
LoRA of rank 16 on all linear layers, the same arithmetic, the same number of optimiser steps. TRL sees all K (K - 1) / 2
pairs of a ranking, a batch holding as many rankings as ours. It runs in two settings, as it comes on a CPU (bf16 autocast,
gradient checkpointing) and without checkpointing; the faster one counts. `memory_k4` is peak memory, the smaller of the
peer's two / ours. `tokens_k4` is what the ratio would be if time went by tokens alone, and `parts` says where ours goes.
"""

import random
import sys
import tempfile
import time
from itertools import combinations
from typing import Any

import preference_pairs as shared
import torch
from common import arguments, finish, in_turn, medians, tell

RANKINGS, BATCH, VOCABULARY = {2: 64, 4: 32, 8: 8}, {2: 8, 4: 4, 8: 2}, 4096  # BATCH in rankings
PROMPT, COMPLETION = 256, (64, 128)  # tokens
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
    reward = RewardModel.new(loaded, "lora", 4096, seed=0)
    start = time.perf_counter()  # as on the other side: model and adapter are there
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


def rankings(rows: int, k: int, seed: int = 0) -> list[dict[str, Any]]:
    """`rows` prompts with `k` completions, best first, as token ids."""
    draw = random.Random(seed)
    ids = lambda length: [draw.randrange(2, VOCABULARY) for _ in range(length)]
    return [
        {"prompt": ids(PROMPT), "completions": [[*ids(draw.randint(*COMPLETION) - 1), 1] for _ in range(k)]}
        for _ in range(rows)
    ]


def tokens(rows: list[dict[str, Any]], k: int) -> dict[str, float]:
    """Tokens that each side computes for a ranking."""
    ours = sum(len(row["prompt"]) + sum(map(len, row["completions"])) for row in rows) / len(rows)
    theirs = sum(
        (k - 1) * sum(len(row["prompt"]) + len(c) for c in row["completions"]) for row in rows
    ) / len(rows)
    return {"ours": ours, "peer": theirs}


def parts(model: Any, rows: list[dict[str, Any]], k: int) -> dict[str, float]:
    """Milliseconds a ranking of ours takes in packing, forward, backward and the rest (clipping, optimiser)."""
    from palate.hardware import probe
    from palate.models import Loaded
    from palate.reward.model import RewardModel
    from palate.sequences import EncodedTree
    from palate.tree_packing import pack

    loaded = Loaded(model, None, None, "", probe("cpu", "auto"))  # type: ignore[arg-type]
    reward = RewardModel.new(loaded, "lora", 4096, seed=0)
    weights = [p for p in reward.modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True)
    spent = dict.fromkeys(("packing", "forward", "backward", "rest"), 0.0)
    trees = [EncodedTree(row["prompt"], row["completions"], 0, 0) for row in rows]
    for first in range(0, len(trees), BATCH[k]):
        batch = trees[first : first + BATCH[k]]
        marks = [time.perf_counter()]
        pack(
            batch, reward.forward.layout, torch.device("cpu")
        )  # once more than needed; the forward pass does it again
        marks.append(time.perf_counter())
        scores = reward.raw_scores(batch)
        loss = -torch.nn.functional.logsigmoid(scores[1:] - scores[:-1]).mean()
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        marks.append(time.perf_counter())
        if first:  # the first one warms up
            for name, begin, end in zip(spent, marks, marks[1:], strict=False):
                spent[name] += end - begin
    spent["forward"] -= spent["packing"]
    return {name: 1000 * seconds / (len(trees) - BATCH[k]) for name, seconds in spent.items()}


def main() -> None:
    """Every side in turn for each K, and the ratios."""
    given = arguments("Reward models: palate against TRL")
    count = {k: 2 * BATCH[k] if given.quick else RANKINGS[k] for k in RANKINGS}
    if given.side:
        k = int(given.case)
        model = shared.tiny_llama(VOCABULARY)
        rows = rankings(count[k], k)
        if given.side == "parts":
            tell(parts(model, rows, k))
        else:
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
        counted = tokens(rankings(count[k], k), k)
        ratios[f"tokens_{case}"] = counted["peer"] / counted["ours"]
        mine[f"tokens_{case}"], theirs[f"tokens_{case}"] = counted["ours"], counted["peer"]
        mine[f"parts_{case}"] = in_turn(__file__, ["parts"], 1, "--case", str(k), *quick)["parts"][0]
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
