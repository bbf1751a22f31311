"""`palate reward serve`: scores over HTTP.

    curl localhost:8765/score -H 'Content-Type: application/json' \
         -d '{"prompt": "write an image prompt: a lighthouse", "completion": "an old lighthouse at dusk"}'
    {"model": "reward-1", "reward": 0.83, "reward_std": 0.21}

POST /score takes `prompt` or `messages` with `completion` (answers `reward`) or `completions` (`rewards`), or a list of such
objects under `rows` (a list under `rows`). Requests that come together are scored together, by one thread. It has no
accounts: away from localhost it wants the token in PALATE_SCORE_TOKEN.
"""

import asyncio
import hmac
import os
import queue
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from palate.config import RewardServeConfig, UserError
from palate.hardware import probe
from palate.project import Project
from palate.reward.scorers import Scorer, open_scorer
from palate.reward.scoring import Row, scored

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
MOST_BYTES = 8 << 20  # of a request
MOST_TEXTS = 256  # scored together, at most
WAITING = 1024  # requests that may wait


class Turn(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class Ask(BaseModel):
    """What is scored: `prompt` with a completion, or several."""

    model_config = ConfigDict(extra="forbid")
    prompt: str | list[Turn] | None = None
    messages: list[Turn] | None = None
    completion: str | None = None
    completions: list[str] | None = Field(None, max_length=MOST_TEXTS)


class Asks(Ask):
    """One of these, or many under `rows`."""

    rows: list[Ask] | None = Field(None, max_length=MOST_TEXTS)


class Worker:
    """One thread that scores what has come since it last looked, together."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._asked: queue.Queue[tuple[list[tuple[str, Row]], Future[list[Row]]] | None] = queue.Queue(
            WAITING
        )
        self._thread = threading.Thread(target=self._work, name="palate-score", daemon=True)
        self._thread.start()

    def ask(self, rows: list[Row]) -> Future[list[Row]]:
        """The rows with their rewards, soon; queue.Full when too many wait."""
        future: Future[list[Row]] = Future()
        places = [(f"row {i}" if len(rows) > 1 else "the request", row) for i, row in enumerate(rows, 1)]
        self._asked.put_nowait((places, future))
        return future

    def close(self) -> None:
        """Score what waits, and end."""
        self._asked.put(None)
        self._thread.join(60)

    def _work(self) -> None:
        while (first := self._asked.get()) is not None:
            together, ending = [first], False
            while sum(len(rows) for rows, _ in together) < MOST_TEXTS and not self._asked.empty():
                more = self._asked.get()
                if more is None:
                    ending = True
                    break
                together.append(more)
            self._score(together)
            if ending:
                return

    def _score(self, together: list[tuple[list[tuple[str, Row]], "Future[list[Row]]"]]) -> None:
        try:
            found = iter(scored([row for rows, _ in together for row in rows], self._scorer))
            for rows, future in together:
                future.set_result([next(found) for _ in rows])
        except Exception as error:  # noqa: BLE001 - handed to who asked
            if len(together) == 1:
                together[0][1].set_exception(error)
                return
            for one in together:  # one of them is to blame: each by itself
                self._score([one])


def make_app(scorer: Scorer, name: str, hosts: tuple[str, ...] = LOCAL, token: str | None = None) -> FastAPI:
    """The web app around a scorer."""
    worker = Worker(scorer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(worker.close)

    app = FastAPI(title="Palate scores", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(422, f"{where or 'the request'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def fail(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Whether it is up, and by which model it scores."""
        return {"status": "ok", "model": name}

    @app.post("/score")
    async def score(request: Request, body: Asks) -> dict[str, Any]:
        """Rewards of one or several completions."""
        if token is not None and not hmac.compare_digest(
            request.headers.get("authorization", "").encode(), f"Bearer {token}".encode()
        ):
            raise HTTPException(401, "send the token: Authorization: Bearer ...")
        asked = [body] if body.rows is None else body.rows
        rows = [row.model_dump(exclude_none=True, exclude={"rows"}) for row in asked]
        if sum(len(row.get("completions", [0])) for row in rows) > MOST_TEXTS:
            raise HTTPException(413, f"at most {MOST_TEXTS} texts in a request")
        try:
            found = await asyncio.wrap_future(worker.ask(rows))
        except queue.Full:
            raise HTTPException(503, "too many requests wait; try again") from None
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        kept: list[dict[str, Any]] = [
            {key: row[key] for key in ("reward", "rewards", "reward_std", "rewards_std") if key in row}
            for row in found
        ]
        answer: dict[str, Any] = {"rows": kept} if body.rows is not None else kept[0]
        return {"model": name, **answer}

    @app.middleware("http")
    async def limited(request: Request, following: Any) -> Any:
        length = request.headers.get("content-length")
        if request.method == "POST" and (length is None or not length.isdigit() or int(length) > MOST_BYTES):
            return _error(
                413 if length else 411, f"a request says its length and has at most {MOST_BYTES >> 20} MB"
            )
        return await following(request)

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])
    return app


def run(project: Project, config: RewardServeConfig) -> None:
    """Serve until Ctrl-C."""
    token = os.environ.get("PALATE_SCORE_TOKEN", "").strip() or None
    local = config.host in LOCAL
    if not local and token is None:
        raise UserError(f"--host {config.host} is open to others: put a token into PALATE_SCORE_TOKEN first")
    scorer, name = open_scorer(
        project, config.reward, probe(config.device, config.dtype), config.max_length, config.pessimism
    )
    app = make_app(scorer, name, LOCAL if local else ("*",), token)
    print(f"takes:  {name}")
    print(f"open:   http://{config.host}:{config.port}/score     (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(
            app, host=config.host, port=config.port, log_level="error", timeout_graceful_shutdown=5
        )
    )
    try:
        server.run()
    except SystemExit as error:
        raise UserError(f"port {config.port} can't be used; choose another with --port") from error
    except KeyboardInterrupt:
        print("\nclosed")


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status_code=status)
