"""Seconds of DPO training, ours against TRL's DPOTrainer, on the same pairs, model, LoRA and number of steps.

    python benchmarks/dpo_speed.py [--quick] [--pairs 64] [--repeats 3] [--vocabulary 4096]

Each side runs in a fresh process, in turn, several times; the median counts. Seconds cover the reference's
log-probabilities and the optimiser steps, not imports or tokenization. TRL runs as a newcomer gets it on a CPU
(`default`: bf16 autocast, gradient checkpointing) and in its best settings (`best`: the fastest of bf16 or fp32
without checkpointing, reference computed beforehand or not). Ratios are the peer's cost over ours.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import preference_pairs as shared

BATCH = 8
PROMPT, COMPLETION = 70, 49  # mean tokens
PEERS: dict[str, dict[str, bool]] = {
    "default": {},
    "bf16": {"gradient_checkpointing": False},
    "bf16_precomputed": {"gradient_checkpointing": False, "precompute_ref_log_probs": True},
    "fp32": {"gradient_checkpointing": False, "bf16": False},
    "fp32_precomputed": {"gradient_checkpointing": False, "bf16": False, "precompute_ref_log_probs": True},
}


def ours(model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The functions `palate dpo` calls, on token ids."""
    from dataclasses import replace

    from palate.hardware import probe
    from palate.models import lora
    from palate.rl import dpo
    from palate.sequences import EncodedTree
    from palate.training import batches, token_budget
    from palate.tree import TreeForward

    hardware = probe("cpu", "auto")
    trees = [EncodedTree(row["prompt"], row["completions"], 0, 0) for row in rows]
    pair = {"winner": 0, "loser": 1, "tie": False, "weight": 1.0}
    preferences = [{"pairs": [pair]} for _ in rows]
    steps = batches(len(rows), BATCH, 1, seed=0)
    budget = token_budget(model.config, hardware)
    start, start_cpu = time.perf_counter(), time.process_time()
    plain = TreeForward.of(model, hardware)
    known = dpo.prepare(plain, preferences, trees, steps, budget)
    forward = replace(plain, model=lora(model, 16, 32, seed=0))
    history = dpo.optimise(forward, known, steps, 1e-4, 0.1, 0.0, budget, lambda *_, **__: None)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "steps": len(history),
        "first_loss": history[0]["loss"],
    }


def peer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], settings: dict[str, bool]) -> dict[str, Any]:
    """TRL's trainer on the same token ids, spelled as words."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    data = Dataset.from_list(
        [
            {
                "prompt": shared.words(row["prompt"]),
                "chosen": " " + shared.words(row["completions"][0][:-1]),
                "rejected": " " + shared.words(row["completions"][1][:-1]),
            }
            for row in rows
        ]
    )
    spent, spent_cpu = [0.0], [0.0]

    class Timed(DPOTrainer):  # the reference pass happens while the trainer is built
        def _precompute_ref_logps(self, *args: Any) -> Any:
            start, start_cpu = time.perf_counter(), time.process_time()
            result = super()._precompute_ref_logps(*args)
            spent.append(time.perf_counter() - start)
            spent_cpu.append(time.process_time() - start_cpu)
            return result

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, use_cpu=True, per_device_train_batch_size=BATCH, num_train_epochs=1,
            learning_rate=1e-4, save_strategy="no", disable_tqdm=True, logging_steps=1, report_to="none", **settings,
        )  # fmt: skip
        trainer = Timed(model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=shared.lora_config("CAUSAL_LM"))
        ids = trainer.train_dataset[0]
        assert ids["prompt_ids"] + ids["chosen_ids"] == rows[0]["prompt"] + rows[0]["completions"][0]
        start, start_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds = time.perf_counter() - start + sum(spent)
        cpu_seconds = time.process_time() - start_cpu + sum(spent_cpu)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "steps": trainer.state.global_step, "first_loss": losses[0]}


def side(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process."""
    model = shared.tiny_llama(settings["vocabulary"])
    rows = shared.random_rankings(settings["pairs"], 2, PROMPT, COMPLETION, settings["vocabulary"])
    if name == "ours":
        return ours(model, rows)
    return peer(model, shared.tokenizer(settings["vocabulary"]), rows, PEERS[name])
