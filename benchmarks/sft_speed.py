"""Real (non-padding) tokens per second of supervised fine-tuning: `palate sft` against stock TRL.

The same rows, the same random Llama (6 layers, 256 wide, 4,096 tokens), both on this machine's CPU, each in a
process of its own, in turn. The peer is TRL's SFTTrainer as it comes, with nothing set but `use_cpu=True` (without
it, it does not start on a machine without a GPU) and a length limit above the longest row. `loss_difference` is the
largest relative difference between the two losses on the same rows: ours is not faster by doing less.

    python benchmarks/sft_speed.py [--quick]
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, finish, in_turn, medians, tell

ROWS, BATCH = 256, 8  # the peer's default batch
SIDES = ("ours", "peer")


def lengths(n: int) -> list[int]:
    """Row lengths like those of demonstrations: median about 100 tokens, mean about 190."""
    rng = random.Random(0)
    return [min(1000, max(16, round(rng.lognormvariate(4.6, 1.1)))) for _ in range(n)]


def rows(n: int) -> list[dict[str, list[int]]]:
    """Random ids; the first fifth of a row is the prompt, which is not learned."""
    rng = random.Random(1)
    found = []
    for length in lengths(n):
        ids = [rng.randrange(8, 4096) for _ in range(length)]
        prompt = max(1, length // 5)
        found.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return found


def make_model(folder: Path) -> None:
    """A folder with the random Llama and a tokenizer of the same size."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(4093))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def ours(folder: Path, n: int) -> dict[str, float]:
    """The training that `palate sft` runs, from the moment its rows are encoded."""
    from palate.config import SftConfig
    from palate.hardware import probe
    from palate.models import load
    from palate.sft.dataset import Row
    from palate.sft.fitting import fit, validation_loss

    loaded = load(None, str(folder), probe("cpu", "auto"))
    data = [Row(row["input_ids"], row["labels"], False, False) for row in rows(n)]
    first = validation_loss(loaded.model, loaded, data[:BATCH])
    assert first is not None
    config = SftConfig(epochs=1, batch_size=BATCH, learning_rate=2e-5, device="cpu")
    fit(loaded.model, loaded, data[:BATCH], config, lambda step, figures: None)  # warm-up
    loaded = load(None, str(folder), probe("cpu", "auto"))
    start = time.perf_counter()
    fit(loaded.model, loaded, data, config, lambda step, figures: None)
    return {"tokens_per_second": data_tokens(n) / (time.perf_counter() - start), "loss": first}


def peer(folder: Path, n: int) -> dict[str, float]:
    """TRL's SFTTrainer with its defaults."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def trainer(data: list[dict[str, list[int]]], scratch: str) -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        settings = SFTConfig(output_dir=scratch, use_cpu=True, num_train_epochs=1, save_strategy="no")
        return SFTTrainer(
            model=model, args=settings, train_dataset=Dataset.from_list(data), processing_class=tokenizer
        )

    data = rows(n)
    with tempfile.TemporaryDirectory() as scratch:
        first = trainer(data[:BATCH], scratch)
        before = first.evaluate(first.train_dataset)["eval_loss"]
        first.train()  # warm-up
        main = trainer(data, scratch)
        start = time.perf_counter()
        main.train()
        seconds = time.perf_counter() - start
    return {"tokens_per_second": data_tokens(n) / seconds, "loss": before}


def data_tokens(n: int) -> int:
    """Real tokens of the rows."""
    return sum(lengths(n))


def main() -> None:
    """Both sides in turn, and the ratio."""
    given = arguments("SFT: palate against stock TRL")
    n = 24 if given.quick else ROWS
    if given.side:
        tell({"ours": ours, "peer": peer}[given.side](given.folder, n))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        quick = ["--quick"] if given.quick else []
        found = in_turn(__file__, SIDES, given.repeats, "--folder", folder, *quick)
    mine, theirs = medians(found["ours"]), medians(found["peer"])
    difference = abs(mine["loss"] - theirs["loss"]) / theirs["loss"]
    finish(
        "sft_speed",
        {"default": mine["tokens_per_second"] / theirs["tokens_per_second"]},
        {"default": mine},
        {"default": theirs},
        {
            "rows": n, "tokens": data_tokens(n), "batch": BATCH, "model": "Llama 6 x 256, vocabulary 4096",
            "repeats": given.repeats, "loss_difference": difference,
        },
    )  # fmt: skip
    if difference > 1e-2:
        sys.exit(f"the two losses on the same rows differ by {difference:.2%}")


if __name__ == "__main__":
    main()
