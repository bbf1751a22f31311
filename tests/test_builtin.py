"""The built-in model folder: small, ordinary, with a chat format every stage can rely on; and its build script."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from palate.builtin import FOLDER
from palate.data import demo_english

FILES = [
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
USER = {"role": "user", "content": "Write an image prompt for: a heron on a rooftop"}
ANSWER = {"role": "assistant", "content": "A heron on a rooftop,\nblue hour light. "}
CONVERSATIONS = [
    [USER],
    [{"role": "system", "content": "Answer briefly."}, USER],
    [USER, ANSWER, {"role": "user", "content": " again, shorter\n"}],
]


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def read(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return settings


def ids(messages: list[dict[str, str]], prompt: bool = False) -> list[int]:
    text = tokenizer().apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
    found: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return found


def test_the_folder_is_complete_and_small() -> None:
    assert all((FOLDER / name).is_file() for name in FILES)
    assert sum((FOLDER / name).stat().st_size for name in FILES) <= 8e6
    assert "apache-2.0" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "auto_map" not in read("config.json")  # no code of its own


def test_special_tokens() -> None:
    tok = tokenizer()
    assert (tok.pad_token, tok.eos_token, tok.bos_token) == ("<|pad|>", "<|end|>", "<|endoftext|>")
    assert len({tok.pad_token_id, tok.eos_token_id, tok.bos_token_id}) == 3
    end_of_text = tok.convert_tokens_to_ids("<|endoftext|>")
    generation = read("generation_config.json")
    assert set(generation["eos_token_id"]) == {tok.eos_token_id, end_of_text}
    assert generation["pad_token_id"] == tok.pad_token_id == read("config.json")["pad_token_id"]
    assert (
        tok("a b")["input_ids"] == tok("a b", add_special_tokens=False)["input_ids"]
    )  # nothing is added unasked


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_a_prompt_is_an_exact_prefix_of_its_conversation(messages: list[dict[str, str]]) -> None:
    prompt, whole = ids(messages, prompt=True), ids([*messages, ANSWER])
    assert whole[: len(prompt)] == prompt
    assert whole[-1] == tokenizer().eos_token_id  # the end of turn, and nothing after it
    assert tokenizer().decode(whole[len(prompt) : -1]) == ANSWER["content"]


def test_the_template_marks_what_the_assistant_says() -> None:
    out = tokenizer().apply_chat_template(
        CONVERSATIONS[2], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    spoken = [token for token, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert tokenizer().decode(spoken) == ANSWER["content"] + "<|end|>"


def test_the_template_refuses_unknown_roles() -> None:
    with pytest.raises(Exception, match="unknown role: tool"):
        tokenizer().apply_chat_template([{"role": "tool", "content": "4"}], tokenize=False)


@pytest.mark.parametrize("text", ["naïve café, 35mm f/1.8", "日本語 🙂", "  two  spaces\n\ttab", "don't  "])
def test_every_text_survives_the_tokenizer(text: str) -> None:
    assert tokenizer().decode(tokenizer()(text)["input_ids"]) == text


def test_common_words_are_whole_or_in_two_pieces() -> None:
    words = [word for word in demo_english.common_words() if word.isalpha()]
    pieces = [len(tokenizer()(f" {word}")["input_ids"]) for word in words]
    assert len(words) >= 1500
    assert sum(count <= 2 for count in pieces) / len(words) >= 0.95
    assert sum(pieces) / len(words) <= 1.5


def test_the_model_loads_and_knows_its_language() -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert model.config.model_type == "llama" and model.config.max_position_embeddings == 4096
    assert 2e6 <= model.num_parameters() <= 3.6e6
    losses = {}
    for text in (
        "Idea: a heron on a rooftop\nPrompt: A heron on a rooftop, candlelight.",
        "rooftop a Prompt heron. on",
    ):
        row = torch.tensor([tokenizer()(text)["input_ids"]])
        with torch.no_grad():
            losses[text] = model(input_ids=row, labels=row).loss.item()
    known, shuffled = losses.values()
    assert known < 3.0 < shuffled


def test_a_short_build_writes_the_same_kind_of_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "palate.builtin.build",
        "--out",
        str(tmp_path),
        "--steps",
        "2",
        "--threads",
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step 2/2  loss" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), name
    assert "$" not in (tmp_path / "README.md").read_text()
