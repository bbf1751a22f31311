"""Makes the built-in base model from nothing: text, tokenizer, a small Llama, a model card.

It is a base: it knows the demo's language and the shape of a conversation, not the demo's task, which is left to
`palate sft`. It is not a general trainer; other models come through `from_pretrained`.

    python -m palate.builtin.build --out DIR --seed 0     # 40 minutes on one thread of a busy machine
    python -m palate.builtin.build --out DIR --steps 2    # a smoke run
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palate.builtin.tokenizer import END_OF_TEXT, END_OF_TURN, train_tokenizer
from palate.data import demo

SHAPE = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6}
VOCAB, CONTEXT = 4096, 4096
ROWS, LENGTH = 4, 256  # rows of one step, tokens of one row
DOCUMENTS_PER_STEP = 15  # about one pass and a half over the documents
PEAK_LR, WARMUP, WEIGHT_DECAY, CLIP = 2e-3, 100, 0.1, 1.0
TOKENIZER_DOCUMENTS, WORD_REPEATS = 40_000, 60
TYPOGRAPHY = (
    "\u2019 \u2018 \u201c \u201d \u2013 \u2014 \u2026 é ü ö ä è ñ ç £ € % & @ # * + = / \\ _ ~ < > [ ] { }"
)


@dataclass(frozen=True)
class Corpus:
    """Token ids of all documents in a row, and where each document starts."""

    tokens: torch.Tensor  # (N,)
    starts: torch.Tensor  # (documents,), only those with a whole row after them

    def rows(self, rng: torch.Generator) -> torch.Tensor:
        """(ROWS, LENGTH + 1): rows that begin with a document and run on into the next ones."""
        first = self.starts[torch.randint(len(self.starts), (ROWS,), generator=rng)]
        return self.tokens[first[:, None] + torch.arange(LENGTH + 1)]


def tokenizer_texts(documents: int, seed: int) -> Iterator[str]:
    """What the merges are learned from: documents, and each listed word often enough that common words stay whole."""
    for document in demo.documents(documents, seed):
        yield document if isinstance(document, str) else "\n".join(turn["content"] for turn in document)
    for word in demo.words():
        yield f"{word.capitalize()} {word} {word}, {word}. " * WORD_REPEATS
    yield TYPOGRAPHY * WORD_REPEATS


def encode(documents: Iterator[demo.Document], tokenizer: PreTrainedTokenizerFast) -> Corpus:
    """Render conversations with the chat template, end every document with `<|endoftext|>`, lay them in a row."""

    def render(document: demo.Document) -> str:
        if isinstance(document, str):
            return document
        return str(tokenizer.apply_chat_template(document, tokenize=False))

    texts = [render(document) + END_OF_TEXT for document in documents]
    ids: list[list[int]] = tokenizer(texts, return_attention_mask=False)["input_ids"]
    tokens = torch.tensor([token for document in ids for token in document], dtype=torch.int32)
    ends = torch.tensor([len(document) for document in ids]).cumsum(0)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
    return Corpus(tokens, starts[starts + LENGTH + 1 <= len(tokens)])


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.03,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SHAPE,
    )
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    warm = min(1.0, (step + 1) / min(WARMUP, max(1, steps // 10)))
    return PEAK_LR * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def loss_of(model: LlamaForCausalLM, rows: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Mean next-token cross-entropy of (B, T + 1) token ids."""
    inputs, targets = rows[:, :-1], rows[:, 1:].long()
    with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
        logits = model(input_ids=inputs, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def bf16_is_faster(model: LlamaForCausalLM, rows: torch.Tensor) -> bool:
    """Whether this processor trains faster under bfloat16 autocast: the best of three passes each, timed."""
    best = {}
    for bf16 in (True, False):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            torch.autograd.backward(loss_of(model, rows, bf16))
            times.append(time.perf_counter() - start)
        best[bf16] = min(times)
    model.zero_grad()
    return best[True] < best[False]


def train(model: LlamaForCausalLM, corpus: Corpus, steps: int, seed: int) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps."""
    rng = torch.Generator().manual_seed(seed)
    bf16 = bf16_is_faster(model, corpus.rows(rng))
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95), fused=True)
    losses: list[float] = []
    start = time.perf_counter()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = loss_of(model, corpus.rows(rng), bf16)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            seconds = time.perf_counter() - start
            speed = (step + 1) * ROWS * LENGTH / seconds
            recent = sum(losses[-50:]) / len(losses[-50:])
            print(
                f"step {step + 1}/{steps}  loss {recent:.3f}  {speed:.0f} tokens/s  {seconds:.0f} s",
                flush=True,
            )
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


@torch.no_grad()
def continuations(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, starts: Sequence[str], seed: int
) -> list[str]:
    """One sample at temperature 1 after each start, special tokens shown."""
    torch.manual_seed(seed)
    model.eval()
    texts = []
    for start in starts:
        ids = tokenizer(start, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=True)
        texts.append(tokenizer.decode(out[0]))
    return texts


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model folder; weights in bfloat16."""
    stops = [tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TURN, END_OF_TEXT)]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
    )
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    settings = out / "tokenizer_config.json"  # the class name that older versions of transformers know too
    config = json.loads(settings.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_card(out: Path, figures: dict[str, str]) -> None:
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(Template(template).substitute(figures), encoding="utf-8")


def build(out: Path, seed: int, steps: int) -> None:
    torch.manual_seed(seed)
    start = time.perf_counter()
    documents = max(200, steps * DOCUMENTS_PER_STEP)
    tokenizer = train_tokenizer(tokenizer_texts(min(documents, TOKENIZER_DOCUMENTS), seed), VOCAB, CONTEXT)
    corpus = encode(demo.documents(documents, seed), tokenizer)
    model = new_model(tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{parameters:,} parameters, {len(tokenizer)} tokens, {len(corpus.tokens):,} tokens of text",
        flush=True,
    )
    trained = time.perf_counter()
    loss = train(model, corpus, steps, seed)
    trained = time.perf_counter() - trained
    save(model, tokenizer, out)
    starts = [
        "Idea: a",
        "Ideas\n-",
        "The",
        f"<|user|>{demo.instruction(demo.ideas(1, seed)[0])}{END_OF_TURN}<|assistant|>",
    ]
    samples = continuations(model.float(), tokenizer, starts, seed)
    print(*samples, sep="\n---\n")
    figures = {
        "parameters": f"{parameters:,}",
        "vocabulary": str(len(tokenizer)),
        "corpus": f"{len(corpus.tokens) / 1e6:.1f} million",
        "seen": f"{steps * ROWS * LENGTH / 1e6:.1f} million",
        "steps": str(steps),
        "seed": str(seed),
        "threads": str(torch.get_num_threads()),
        "loss": f"{loss:.2f}",
        "speed": f"{steps * ROWS * LENGTH / trained:.0f}",
        "minutes": f"{(time.perf_counter() - start) / 60:.0f}",
        "size": f"{sum(file.stat().st_size for file in out.iterdir() if file.suffix in ('.safetensors', '.json')) / 1e6:.1f}",
        "samples": "\n\n".join(f"    {sample}".replace("\n", "\n    ") for sample in samples),
    }
    write_card(out, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the built-in base model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    build(args.out, args.seed, args.steps)


if __name__ == "__main__":
    main()
