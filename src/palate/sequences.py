"""Messages to token ids: one template and one rule for every stage, so that none sees other tokens than the rest.

    encoder = Encoder(tokenizer)
    encoder.prompt(messages)        ids up to where the answer begins
    encoder.completion(text)        ids of the answer and of the token that ends the turn
    encoder.tree(messages, texts)   both, cut to a length, with what was cut counted

The prompt is rendered with the template's generation prompt, the completion is tokenised by itself, and the two
are concatenated. So the model is trained on exactly the ids it is prompted with, and no token straddles the
boundary. This file knows tokenizers, not models.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palate.config import UserError
from palate.data.records import Message

# For tokenizers that bring no template: "User:\nHello\n\nAssistant:\nHi<eos>\n\nUser:\n..."
DEFAULT_TEMPLATE = """\
{%- for message in messages -%}
    {{- message['role'] | capitalize + ':\\n' + message['content'] -}}
    {%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}
    {{- '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:\\n' -}}{%- endif -%}
"""
_QUESTION, _ANSWER = "Where is the key?", "Under the mat."  # no template adds these by itself
PROMPT_SHARE = 4  # a prompt keeps at least its last max_length / 4 tokens, however long the completion


@dataclass(frozen=True)
class EncodedTree:
    """One prompt and its completions as token ids."""

    prompt: list[int]
    completions: list[list[int]]  # each ends with the stop token unless it was cut or hit the length limit
    cut_prompt: int  # tokens cut from the prompt's start
    cut_completions: int  # completions that lost their end, and with it the stop token


class Encoder:
    """A tokenizer with its template. A missing template is replaced by `DEFAULT_TEMPLATE`, in the tokenizer too."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int] = ()) -> None:
        """`stop_ids`: more ids that end a generation (those of the model's generation config)."""
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            if tokenizer.eos_token is None:
                raise UserError(
                    f"the tokenizer of {tokenizer.name_or_path} has neither a chat template nor an eos token, so "
                    "nothing can end an answer; set eos_token in its tokenizer_config.json"
                )
            starts_with_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
            tokenizer.chat_template = ("{{- bos_token -}}" if starts_with_bos else "") + DEFAULT_TEMPLATE
        self.stop_id = self._find_stop_id()
        known = {self.stop_id, *stop_ids} | ({tokenizer.eos_token_id} - {None})
        self.stop_ids = tuple(sorted(known))
        self.pad_id = self._find_pad_id()
        self.template_hash = self._hash()

    def render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        """The conversation as the template writes it."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except Exception as error:  # jinja: the template refuses the roles or their order
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(f"the model's chat template refuses the roles ({roles}): {error}") from error

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the answer begins; the template alone writes the special tokens."""
        text = self.render(messages, generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def completion(self, text: str, finish_reason: str | None = None) -> list[int]:
        """Token ids of an answer, and the token that ends the turn unless it stopped at a length limit.

        Special tokens spelled out in `text` stay plain text, so nobody can end or open a turn inside an answer.
        """
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.stop_id] if finish_reason != "length" else list(ids)

    def tree(
        self,
        messages: Sequence[Message],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
        max_length: int | None = None,
    ) -> EncodedTree:
        """Prompt and completions, at most `max_length` tokens for the prompt and any one completion.

        A prompt too long keeps its end (and a leading bos); it always keeps at least `max_length / 4` tokens, and
        a completion longer than what that leaves loses its end.
        """
        reasons = finish_reasons if finish_reasons is not None else [None] * len(texts)
        prompt = self.prompt(messages)
        completions = [self.completion(t, r) for t, r in zip(texts, reasons, strict=True)]
        if max_length is None:
            return EncodedTree(prompt, completions, 0, 0)
        if max_length < 2 * PROMPT_SHARE:
            raise UserError(f"--max-length {max_length} is too short; use at least {2 * PROMPT_SHARE}")
        room = max_length - min(len(prompt), max_length // PROMPT_SHARE)
        cut = sum(len(ids) > room for ids in completions)
        completions = [ids[:room] for ids in completions]
        kept = self._end_of(prompt, max_length - max((len(ids) for ids in completions), default=0))
        return EncodedTree(kept, completions, len(prompt) - len(kept), cut)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion's ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def prefix_problem(self) -> str | None:
        """One sentence when the template does not render the prompt as a prefix of prompt and answer."""
        user, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
        prompt, whole = self.render([user], True), self.render([user, answer], False)
        if whole.startswith(prompt + _ANSWER):
            return None
        return (
            "the chat template writes a prompt differently when an answer follows it, so earlier turns of a "
            "conversation look different from the turn that is trained"
        )

    def _end_of(self, prompt: list[int], room: int) -> list[int]:
        if len(prompt) <= room:
            return prompt
        if prompt[0] == self.tokenizer.bos_token_id:  # some models go astray without it
            return [prompt[0], *prompt[len(prompt) - room + 1 :]]
        return prompt[len(prompt) - room :]

    def _find_stop_id(self) -> int:
        """The first special token that the template writes after an answer, else the tokenizer's eos."""
        user, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
        tail = self.render([user, answer], False).rpartition(_ANSWER)[2]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for token in self.tokenizer(tail, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path} ends an answer with no special token and the "
                "tokenizer has no eos token, so the model could never stop; set eos_token"
            )
        return int(self.tokenizer.eos_token_id)

    def _find_pad_id(self) -> int:
        """An id for the empty places of a batch, never one that ends a turn. Masks are explicit: it is not read."""
        padding = self.tokenizer.pad_token_id
        if padding is not None and padding not in self.stop_ids:
            return int(padding)
        return next(i for i in range(len(self.tokenizer)) if i not in self.stop_ids)

    def _hash(self) -> str:
        # not the rendered text: some templates write today's date
        sample = self.tokenizer(_QUESTION + _ANSWER, add_special_tokens=False)["input_ids"]
        content = json.dumps([self.tokenizer.chat_template, self.stop_id, len(self.tokenizer), sample])
        return hashlib.sha256(content.encode()).hexdigest()[:20]
