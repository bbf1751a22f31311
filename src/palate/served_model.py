"""A model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, `palate label`'s live models' kind), to sample from.

    written = ServedModel("http://localhost:8000/v1#my-model")
    written.sample([messages], k=4)

It speaks /chat/completions, many requests at once. The key, if the server wants one, is in PALATE_SERVER_KEY. A server that is
gone is asked again for half a minute. Not here: training, which needs the model's own probabilities.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from palate.config import UserError
from palate.data.records import Message, digest
from palate.generation import Sampled

AT_ONCE = 16  # requests
TRIES = 6  # of one; the pauses between them double from a second
ROUNDS = 8  # in which a server may hand out its answers, where it gives one at a time


def is_address(ref: str) -> bool:
    """Whether a reference to a model is a server's."""
    return ref.startswith(("http://", "https://"))


class ServedModel:
    """`address` is the base URL, as a client library takes it, and after a # the model's name (default: the first it lists)."""

    def __init__(self, address: str) -> None:
        import httpx

        url, _, name = address.partition("#")
        key = os.environ.get("PALATE_SERVER_KEY")
        self._http = httpx
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(600.0, connect=10.0),
            limits=httpx.Limits(max_connections=AT_ONCE),
        )
        self.url, self.name = url.rstrip("/"), name or self._first()

    def sample(
        self,
        prompts: Sequence[Sequence[Message]],
        k: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 96,
        seed: int = 0,
        batch_size: int = 128,
        progress: Callable[[int], object] | None = None,
    ) -> list[list[Sampled]]:
        """As `palate.generation.sample`, without token ids; `batch_size` is the server's business."""

        def answers(place: int) -> list[Sampled]:
            found: list[Sampled] = []
            for attempt in range(ROUNDS):  # some servers ignore n
                asked = {
                    "model": self.name, "messages": list(prompts[place]), "n": k - len(found), "temperature": temperature,
                    "top_p": top_p, "max_tokens": max_new_tokens, "seed": int(digest(seed, place, attempt)[:7], 16),
                }  # fmt: skip
                found += self._read(self._ask("POST", "/chat/completions", asked))
                if len(found) >= k:
                    break
            if progress is not None:
                progress(k)
            return found[:k]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(answers, range(len(prompts))))

    def _first(self) -> str:
        listed = self._ask("GET", "/models", None)
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{self._client.base_url} lists no models: name one as URL#MODEL") from error

    def _read(self, answer: Any) -> list[Sampled]:
        try:
            return [
                Sampled(
                    choice["message"]["content"] or "",
                    [],
                    "length" if choice["finish_reason"] == "length" else "stop",
                )
                for choice in answer["choices"]
            ]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self.url} answers something else than chat completions: {str(answer)[:200]}"
            ) from error

    def _ask(self, method: str, path: str, content: Any) -> Any:
        reason = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(2 ** (attempt - 1))
            try:
                response = self._client.request(method, path, json=content)
            except self._http.TransportError as error:
                reason = str(error) or type(error).__name__
                continue
            if response.status_code == 200:
                try:
                    return response.json()
                except ValueError as error:
                    raise UserError(
                        f"{self._client.base_url}{path} answers no JSON: {response.text[:200]}"
                    ) from error
            reason = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code not in (408, 429, 500, 502, 503, 504):
                break
        raise UserError(f"{self._client.base_url} does not answer: {reason}")
