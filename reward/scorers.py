"""Who scores: a reward run, or any sequence-classification model from a folder or the hub, behind one call.

    scorer = open_scorer(project, None, probe("auto", "auto"))       # the latest reward run
    scorer.score([messages], ["an answer"])                          # [0.83], whatever else is in the batch

A classifier's own template and tokens are used; its score is read at the last real token of each row whatever its pad
token is (many have none, or their end token, and then read the wrong place in a batch).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from palate.config import UserError
from palate.data.records import Message
from palate.hardware import Hardware
from palate.models import quiet_libraries
from palate.project import Project
from palate.reward.model import RewardModel, load_reward

ROWS = 32  # of a classifier's batch; rows of similar length share one
CUT_AT = 4096  # tokens, for a classifier that names no limit of its own


class Scorer(Protocol):
    """Rewards of (prompt, text) pairs."""

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> list[float]:
        """One reward per text; `finish_reasons[i] == "length"`: the text was cut."""
        ...

    def score_with_sd(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> tuple[list[float], list[float] | None]:
        """The same, and the standard deviations where the model knows them."""
        ...

    @property
    def cut(self) -> int:
        """How many texts or prompts were cut to the model's length so far."""
        ...


class Classifier:
    """A sequence-classification model with one label, as a scorer."""

    def __init__(self, source: str, hardware: Hardware, max_length: int | None = None) -> None:
        self._model, self._tokenizer = _from_pretrained(source)
        labels = int(self._model.config.num_labels)
        if labels != 1:
            raise UserError(f"{source} has {labels} labels; a reward model has one (num_labels 1)")
        self._model = self._model.to(hardware.device).eval()
        self._hardware = hardware
        config = self._model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None) or CUT_AT
        self._length = min(max_length or context, context)
        self._causal = hasattr(self._model, "score")  # reads one token; encoders pool by attention mask
        self.cut = 0

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> list[float]:
        """The model's logit, in its own scale and in float32."""
        rows = [self._ids(messages, text) for messages, text in zip(prompts, texts, strict=True)]
        found = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for first in range(0, len(order), ROWS):
            group = order[first : first + ROWS]
            for index, logit in zip(group, self._logits([rows[i] for i in group]), strict=True):
                found[index] = logit
        return found

    def score_with_sd(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> tuple[list[float], list[float] | None]:
        """Its logits; a classifier says nothing of how sure it is of them."""
        return self.score(prompts, texts, finish_reasons), None

    def _ids(self, messages: Sequence[Message], text: str) -> list[int]:
        whole = [*messages, {"role": "assistant", "content": text}]
        if self._tokenizer.chat_template is not None:
            rendered = self._tokenizer.apply_chat_template(whole, tokenize=False)
            ids = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        elif self._causal:
            ids = self._tokenizer("\n\n".join(message["content"] for message in whole))["input_ids"]
            end = self._tokenizer.eos_token_id
            ids = ids if end is None or ids[-1:] == [end] else [*ids, end]
        else:
            asked = "\n\n".join(message["content"] for message in messages)
            ids = self._tokenizer(asked, text)["input_ids"]
        if len(ids) > self._length:
            self.cut += 1
            ids = ids[-self._length :] if self._causal else ids[: self._length]
        if not ids:
            raise UserError("the model's tokenizer makes nothing of this text")
        return list(ids)

    def _logits(self, rows: Sequence[Sequence[int]]) -> list[float]:
        longest = max(map(len, rows))
        pad = self._pad(rows)
        ids = torch.tensor(
            [[*row, *[pad] * (longest - len(row))] for row in rows], device=self._hardware.device
        )
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=ids.device)
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        return [float(value) for value in logits[:, 0].float()]

    def _pad(self, rows: Sequence[Sequence[int]]) -> int:
        """For a causal model an id that no row holds, told to its config: the last token that is another one is read."""
        if not self._causal:
            return int(self._tokenizer.pad_token_id or 0)
        config = self._model.config.get_text_config()
        used = {one for row in rows for one in row}
        config.pad_token_id = next((i for i in range(int(config.vocab_size)) if i not in used), None)
        if config.pad_token_id is None:
            raise UserError("a batch holds every token there is; score fewer texts at once")
        return int(config.pad_token_id)


class RunScorer:
    """A reward run as a scorer."""

    def __init__(self, model: RewardModel, max_length: int | None = None, pessimism: float = 0.0) -> None:
        self._model, self._pessimism = model, pessimism
        if max_length is not None:
            self._model.max_length = max_length
        self.cut = 0

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> list[float]:
        """In standard deviations over the training completions, less `pessimism` times how unsure each is."""
        return self.score_with_sd(prompts, texts, finish_reasons)[0]

    def score_with_sd(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> tuple[list[float], list[float] | None]:
        """See RewardModel.score_with_sd."""
        reasons = finish_reasons if finish_reasons is not None else [None] * len(texts)
        encoder, length = self._model.loaded.encoder, self._model.max_length
        for messages, text, reason in zip(prompts, texts, reasons, strict=True):
            tree = encoder.tree(messages, [text], [reason], length)
            self.cut += tree.cut_prompt > 0 or tree.cut_completions > 0
        rewards, sds = self._model.score_with_sd(prompts, texts, reasons)
        if self._pessimism and sds is not None:
            rewards = [reward - self._pessimism * sd for reward, sd in zip(rewards, sds, strict=True)]
        return rewards, sds


def open_scorer(
    project: Project | None,
    ref: str | None,
    hardware: Hardware,
    max_length: int | None = None,
    pessimism: float = 0.0,
) -> tuple[Scorer, str]:
    """(scorer, what it is) behind a reference: a run of this project, a folder, a hub id; None is the latest run.

    `pessimism` >= 0: so many standard deviations are taken off each reward; only for runs that know them.
    """
    if not 0 <= pessimism <= 100:
        raise UserError(f"--pessimism takes 0 to 100 standard deviations, got {pessimism}")
    if max_length is not None and max_length < 8:
        raise UserError(f"--max-length must be at least 8, got {max_length}")
    runs = [] if project is None else project.runs()
    if ref is None:
        latest = project.latest("reward") if project is not None else None
        if latest is None:
            raise UserError(
                "there is no finished reward run here: palate reward, or name a model with --reward"
            )
        ref = latest.id
    if project is not None and any(run.id == ref for run in runs):
        model = load_reward(project, ref, hardware)
        if pessimism and model.uncertainty is None:
            raise UserError(
                f"{ref} does not know how sure it is (--uncertainty off): train it again, or --pessimism 0"
            )
        return RunScorer(model, max_length, pessimism), ref
    if pessimism:
        raise UserError(f"--pessimism needs a reward run of ours: {ref} does not say how sure it is")
    return Classifier(ref, hardware, max_length), ref


def _from_pretrained(source: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
        raise UserError(f"there is no folder {source}")
    source = str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    try:
        with quiet_libraries():
            config = AutoConfig.from_pretrained(source)
            if not any(
                "SequenceClassification" in name or "Reward" in name for name in config.architectures or ()
            ):
                raise UserError(
                    f"{source} is no model for sequence classification (its architecture: "
                    f"{', '.join(config.architectures or ['not said'])}): its score would be random"
                )
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"'{source}' is neither a reward run of this project nor a model that loads: "
            f"{lines[0] if lines else type(error).__name__}"
        ) from error
    return model, tokenizer
