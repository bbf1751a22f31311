"""The store behind a running server: the same interface as `Store`, over HTTP.

`palate label` owns the database while it runs. Stages then ask it, from this machine or another one: reading is a
SELECT that comes back as Arrow, adding is one request that is stored whole or not at all. Both may be sent again
when the network fails, since ids are digests of content; so a server that restarts is waited for, a little.

    with RemoteStore("https://label.example.org", token) as store:
        rankings(store)
"""

import glob
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from palate.config import UserError
from palate.data.any_store import AnyStore, copied
from palate.data.records import Run

PAUSES = (0.3, 0.7, 1.5, 3.0, 6.0)  # seconds between attempts: a restart of the server takes a few
AGAIN = (429, 502, 503, 504)  # statuses after which the same request may be sent again
LARGEST = 2**30 - 2**20  # bytes of an addition; the server takes no more in one request
TIMEOUT = 600.0  # seconds in which a large query or addition must have come back
Files = Sequence[tuple[str, Path]]


class RunTaken(UserError):
    """Another machine's run has this id."""


class RemoteStore(AnyStore):
    """A store that another process owns. Threads may share it. `name` is how messages call the server."""

    def __init__(
        self, url: str, token: str, name: str | None = None, pauses: Sequence[float] = PAUSES
    ) -> None:
        import httpx  # here, so that commands on a database of their own need not load it

        self.url, self._name, self._pauses = url.rstrip("/"), name or url.rstrip("/"), tuple(pauses)
        self._http = httpx
        if not self.url.startswith(("http://", "https://")):
            raise UserError(f"a store is an address like https://label.example.org, got {url!r}")
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(TIMEOUT, connect=10.0),
            trust_env=not _local(self.url),  # a proxy of the environment knows nothing of this machine
        )

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answers(self) -> bool:
        """Whether the server is up and takes the token; asked once."""
        try:
            return bool(self._client.get("/me", timeout=5.0).status_code == 200)
        except self._http.TransportError:
            return False

    # -- reading ---------------------------------------------------------------------------------------

    def table(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """The result of a query as an Arrow table."""
        response = self._ask("POST", "/query", json={"sql": sql, "params": list(params)})
        return pa.ipc.open_stream(pa.py_buffer(response.content)).read_all()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The result of a query as one dict per row."""
        found = self.table(sql, params).to_pylist()
        return [{name: _plain(value) for name, value in row.items()} for row in found]

    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        found = self.table(sql, params)
        return _plain(found.column(0)[0].as_py()) if found.num_rows else None

    def export(self, query: str, file: Path, options: str) -> int:
        """The rows come over the network; the file is written here."""
        with duckdb.connect() as con:
            con.register("fetched", self.table(query))
            return copied(con, "SELECT * FROM fetched", file, options)

    # -- writing ---------------------------------------------------------------------------------------

    def add_tables(self, tables: Mapping[str, pa.Table | Path]) -> dict[str, int]:
        """Insert rows of several tables in one request; see AnyStore."""
        with tempfile.TemporaryDirectory() as folder:
            files: list[tuple[str, Path]] = []
            for number, (table, rows) in enumerate(tables.items()):
                if isinstance(rows, Path):
                    files += [(table, Path(name)) for name in sorted(glob.glob(str(rows)))]
                else:
                    path = Path(folder) / f"{number}.parquet"
                    pq.write_table(rows, path, compression="zstd")
                    files.append((table, path))
            size = sum(path.stat().st_size for _, path in files)
            if size > LARGEST:
                raise UserError(
                    f"{size / 2**20:,.0f} MB at once are too much for {self._name} (at most {LARGEST / 2**20:,.0f}): "
                    "send less at a time, or stop the server and work on its machine"
                )
            new = self._send("/tables", files).json()["new"]
        return {table: int(new.get(table, 0)) for table in tables}

    def put_run(self, run: Run) -> None:
        """Register a run on the server, or bring its record up to date."""
        record = json.loads(json.dumps(asdict(run), default=str))
        self._ask("PUT", f"/runs/{run.id}", json=record)

    def raise_overlap(self, comparison_ids: Sequence[str], overlap: int) -> None:
        """Ask for at least so many annotators' answers on these comparisons."""
        ids = list(comparison_ids)
        for first in range(0, len(ids), 50_000):
            body = {"ids": ids[first : first + 50_000], "overlap": overlap}
            self._ask("POST", "/comparisons/overlap", json=body)

    def put_view(
        self, name: str, definition: Mapping[str, Any], weights: Mapping[str, float] | None, by: str | None
    ) -> None:
        """Save a view, or put it in another's place; the server makes the weights and knows who asks."""
        self._ask("PUT", f"/views/{name}", json=dict(definition))

    def delete_view(self, name: str) -> None:
        """Forget a view; see AnyStore."""
        self._ask("DELETE", f"/views/{name}")

    # -- the connection --------------------------------------------------------------------------------

    def get(self, path: str) -> dict[str, Any]:
        """The JSON answer of a route under /api/v1."""
        return dict(self._ask("GET", path).json())

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer of a route under /api/v1; the request may be sent more than once."""
        return dict(self._ask("POST", path, json=body).json())

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        return self._patiently(lambda: self._client.request(method, path, **content))

    def _send(self, path: str, files: Files) -> Any:
        """Upload files, opened anew for each attempt; they are read as they are sent."""

        def attempt() -> Any:
            with ExitStack() as stack:
                parts = [(table, (file.name, stack.enter_context(file.open("rb")))) for table, file in files]
                return self._client.post(path, files=parts)

        return self._patiently(attempt)

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """The response of an attempt that worked; a UserError of one line when none does."""
        for pause in (*self._pauses, None):
            try:
                response = attempt()
            except self._http.TransportError as error:
                if pause is None or _certificate(error):
                    raise UserError(self._away(error)) from error
            else:
                if response.status_code < 300:
                    return response
                if response.status_code not in AGAIN or pause is None:
                    raise self._refusal(response)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, response: Any) -> UserError:
        status = response.status_code
        try:
            told = response.json()["error"]
            code, message = str(told["code"]), " ".join(str(told["message"]).split())
        except (ValueError, KeyError, TypeError):
            code, message = "", f"status {status}"
        if status == 401:
            return UserError(
                f"{self._name} does not know this token: make one at its /account, and put it into "
                "PALATE_TOKEN or into the file `token` of the project folder"
            )
        if status == 403:
            return UserError(f"{self._name} does not allow it: {message}; ask for a lead's token")
        if 300 <= status < 400 or (status == 404 and not code):
            return UserError(f"{self._name} is no Palate server, or of another version (status {status})")
        if code == "taken":
            return RunTaken(message)
        return UserError(f"{self._name}: {message}")

    def _away(self, error: Exception) -> str:
        if _certificate(error):
            return (
                f"the certificate of {self._name} is not valid for it ({_first_line(error)}); use the name that "
                "it is made out to, or name its authority in SSL_CERT_FILE"
            )
        return f"{self._name} does not answer ({_first_line(error)}): is `palate label` running there?"


def _plain(value: Any) -> Any:
    """As a database of one's own gives it: sums are whole numbers, not decimals."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def _certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _local(url: str) -> bool:
    return url.split("://", 1)[-1].split("/")[0].rsplit(":", 1)[0] in ("127.0.0.1", "localhost", "[::1]")
