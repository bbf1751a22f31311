"""The door: what stands in front of every route, says who is asking, and refuses what must not come in.

Plain ASGI, because it runs for every request. A session cookie is HttpOnly and SameSite=Lax; requests from
other sites are refused; Host must be one of ours; forwarding headers count from named proxies only; Gradio's
routes that read, write or fetch files are closed. Routes ask `require(request, "lead")`.
"""

import asyncio
import hashlib
import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import duckdb
from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.config import UserError
from palate.data.records import AnnotatorRole
from palate.labeling.credentials import brought
from palate.labeling.people import SESSION, People, Person, Refused
from palate.labeling.throttle import plain

__all__ = ["Door", "Refused", "clean_root", "cookie_name", "hosts_of", "networks", "refuse", "require"]

# served to everybody: how to come in, and what a machine asks
OPEN_PATHS = (
    "/login", "/start", "/invite", "/people.css", "/healthz", "/readyz", "/metrics", "/favicon.ico",
    "/manifest.json", "/robots.txt",
)  # fmt: skip
# Gradio's routes that call functions, store, serve or fetch files or keep histories all stand under /gradio_api/; the
# ranking page needs none of them. Then its own login and monitoring.
SHUT = ("/monitoring", "/pwa_icon", "/login/", "/logout/")
BODY = 2 * 2**20  # bytes of a request's body
DATA, DATA_BODY = (
    ("/api/v1/tables", "/api/v1/query"),
    2**30,
)  # where leads send whole tables, long lists of ids
SAFE = ("GET", "HEAD", "OPTIONS")
# Gradio needs inline scripts and builds functions from strings; nothing may come from, or go to, elsewhere
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
           "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
           "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}  # fmt: skip


def require(request: Request, role: AnnotatorRole = "annotator") -> Person:
    """Who sends this request, if they may do what `role` may; else Refused."""
    person: Person | None = request.scope.get("state", {}).get("person")
    if person is None:
        raise Refused(401, "login", "log in first, at /login or with a token")
    if not person.may(role):
        raise Refused(403, "forbidden", f"this takes the role {role}; {person.name} is {person.role}")
    return person


def cookie_name(folder: Path) -> str:
    """The cookie of the project in `folder`: browsers share cookies between ports."""
    return "palate-" + hashlib.sha256(str(folder).encode()).hexdigest()[:10]


def set_cookie(request: Request, response: Response, people: People, secret: str) -> None:
    """Put a session into the browser."""
    response.headers.append("set-cookie", _cookie(request.scope, people.cookie, secret))


def _cookie(scope: Scope, name: str, secret: str, seconds: int = int(SESSION.total_seconds())) -> str:
    secure = "; Secure" if scope["scheme"] == "https" else ""
    path = scope.get("root_path") or "/"
    return f"{name}={secret}; Max-Age={seconds}; Path={path}; HttpOnly; SameSite=Lax{secure}"


def clear_cookie(request: Request, response: Response, people: People) -> None:
    """Take the session out of the browser."""
    response.headers.append("set-cookie", _cookie(request.scope, people.cookie, "", 0))


class Door:
    """The outermost ASGI layer of the app."""

    def __init__(
        self, app: ASGIApp, people: People, hosts: Iterable[str], proxies: Iterable[str] = (), root: str = ""
    ) -> None:
        self.app, self.people, self.root = app, people, clean_root(root)
        self._hosts = {host.lower().strip("[]") for host in hosts}
        self._proxies = networks(proxies)
        self._saving: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        scope = self._arrived(scope)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        person = self.people.person_of(scope)
        scope["state"] = {**scope.get("state", {}), "person": person}
        path = scope["path"].removeprefix(self.root)
        extra = self._note(person, scope)
        refusal = self._refusal(scope, path, headers, person)
        if refusal is not None:
            await refusal(scope, receive, _answering(send, path, extra))
            return
        limit = DATA_BODY if path in DATA and person and person.may("lead") else BODY
        if headers.get("content-length", "0").isdigit() and int(headers.get("content-length", "0")) > limit:
            refusal = refuse(413, "too_large", f"a request to {path[:80]} takes at most {limit} bytes")
            await refusal(scope, receive, _answering(send, path, extra))
            return
        await self.app(scope, *_limited(receive, _answering(send, path, extra), limit))

    def _arrived(self, scope: Scope) -> Scope:
        """The scope as the sender meant it: behind a trusted proxy its client and scheme, under the root path."""
        scope = dict(scope)
        address = plain(scope["client"][0]) if scope.get("client") else ""
        headers = [(name, value) for name, value in scope["headers"] if not name.startswith(b"x-forwarded-")]
        if _inside(address, self._proxies):
            forwarded = dict(scope["headers"])
            if forwarded.get(b"x-forwarded-proto", b"").strip().lower() in (b"http", b"https"):
                scope["scheme"] = forwarded[b"x-forwarded-proto"].strip().lower().decode()
            chain = b",".join(v for n, v in scope["headers"] if n == b"x-forwarded-for").decode("latin-1")
            for hop in reversed([hop.strip() for hop in chain.split(",") if hop.strip()]):
                # the nearest one that is no proxy of ours; what stands before it may be made up
                address = plain(hop)
                if not _inside(address, self._proxies):
                    break
            scope["client"] = (address, 0)
            headers.append(
                (b"x-forwarded-proto", scope["scheme"].encode())
            )  # Gradio builds its links from it
        scope["headers"] = headers
        route = str(scope["path"])
        if self.root and (route == self.root or route.startswith(f"{self.root}/")):
            route = route[len(self.root) :]  # the proxy left the prefix on
        scope["root_path"], scope["path"] = self.root, self.root + (route or "/")
        scope["raw_path"] = quote(scope["path"]).encode()
        return scope

    def _refusal(
        self, scope: Scope, path: str, headers: dict[str, str], person: Person | None
    ) -> Response | None:
        """Why this request may not go on, as a response; None when it may."""
        host = headers.get("host", "")
        if _name(host) not in self._hosts or sum(name == b"host" for name, _ in scope["headers"]) != 1:
            text = f"this server is not called {host[:80]!r}; start it with --trusted-hosts to make it so"
            return PlainTextResponse(text, 400)
        if not (person and person.via == "token") and _foreign(scope["method"], host, headers):
            return refuse(403, "other_site", "requests from other sites are refused")
        if _shut(scope["method"], path):
            return refuse(404, "not_found", "there is no such page")
        if person is not None or path in OPEN_PATHS:
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope.get("query_string", b"").decode("latin-1")
            there = quote(f"{path}?{query}" if query else path)
            return RedirectResponse(f"{self.root}/login" + (f"?next={there}" if there != "/" else ""), 303)
        return refuse(401, "login", "log in first, at /login or with a token")

    def _note(self, person: Person | None, scope: Scope) -> list[tuple[str, str]]:
        """Remember that somebody was here; the headers by which their cookie is renewed."""
        if person is None:
            return []
        token, secret = brought(scope, self.people.cookie)
        known = (token if person.via == "token" else secret) or ""
        renew, save = self.people.touch(person, known)
        if save is not None:

            async def keep() -> None:
                with suppress(duckdb.Error, UserError):  # nobody's request fails for the time of a last visit
                    await asyncio.to_thread(save)

            task = asyncio.get_running_loop().create_task(keep())
            self._saving.add(task)
            task.add_done_callback(self._saving.discard)
        return [("set-cookie", _cookie(scope, self.people.cookie, known))] if renew else []


def refuse(status: int, code: str, message: str) -> JSONResponse:
    """An error as every route of the app tells it."""
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def local_path(text: str | None) -> str:
    """A path of this app to go to after logging in; "/" for anything that could lead elsewhere."""
    if not text or not text.startswith("/") or text[1:2] in ("/", "\\") or not text.isprintable():
        return "/"
    parts = urlsplit(text)
    return "/" if parts.scheme or parts.netloc or "\\" in text else text


def clean_root(root: str) -> str:
    """A root path as `/palate`, or empty."""
    root = root.strip().strip("/")
    if any(part in ("", "..", ".") for part in root.split("/")) and root or not root.isprintable():
        raise UserError(f"--root-path must be a path like /palate, got {root!r}")
    return f"/{root}" if root else ""


def networks(addresses: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Addresses and CIDR ranges; a UserError names one that is neither."""
    found = []
    for address in addresses:
        try:
            found.append(ipaddress.ip_network(address.strip(), strict=False))
        except ValueError as error:
            raise UserError(
                f"--proxies takes addresses like 127.0.0.1 or 10.0.0.0/8, got {address!r}"
            ) from error
    return found


def hosts_of(host: str, trusted: Iterable[str] = ()) -> list[str]:
    """The Host headers that are answered: anything else is a page of another site pointing here."""
    names = ["localhost", "127.0.0.1", "::1", host, *trusted]
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
        names += [name, f"{name}.local"]
        with suppress(socket.gaierror):
            names += [str(info[4][0]) for info in socket.getaddrinfo(name, None)]
    return names


def _inside(address: str, ranges: list[Any]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in ranges)


def _shut(method: str, path: str) -> bool:
    """Whether this is a route of Gradio that no page of this app uses."""
    return "/gradio_api" in path or path.startswith(SHUT) or (path == "/logout" and method != "POST")


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _foreign(method: str, host: str, headers: dict[str, str]) -> bool:
    """Whether a page of another site sent this. Following a link from elsewhere is no such thing."""
    origin = headers.get("origin")
    if origin is not None:
        scheme = urlsplit(origin).scheme  # "null" has none: a page without an origin is no page of ours
        return scheme not in ("http", "https") or _authority(origin) != _authority(f"{scheme}://{host}")
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    if site in ("cross-site", "same-site"):
        return not (method == "GET" and mode == "navigate" and headers.get("sec-fetch-dest") == "document")
    if method not in SAFE and site is None and "referer" in headers:
        return urlsplit(headers["referer"]).netloc != host
    return False


def _authority(url: str) -> str:
    """`name:port` of an origin, the port that goes without saying left out."""
    parts = urlsplit(url)
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return parts.netloc.lower().removesuffix(default) if default else parts.netloc.lower()


def _answering(send: Send, path: str, extra: list[tuple[str, str]]) -> Send:
    """`send` with the policy's headers on every response."""
    keep = "/assets/" in path or "/static/" in path or path == "/people.css"

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            cors = b"access-control-"  # no other site may read anything, whatever Gradio would allow
            message["headers"] = [pair for pair in message["headers"] if not pair[0].startswith(cors)]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                if not (name == "Cache-Control" and keep and message["status"] in (200, 304)):
                    headers.setdefault(name, value)
            own = [value.partition("=")[0] for value in headers.getlist("set-cookie")]
            for name, value in extra:
                if value.partition("=")[0] not in own:  # who has just logged in, or out, is not who asked
                    headers.append(name, value)
        await send(message)

    return answer


def _limited(receive: Receive, send: Send, limit: int) -> tuple[Receive, Send]:
    """Both ends of a request whose body is cut off at `limit` bytes: its sender then gets a 413."""
    size, over = 0, False

    async def take() -> Message:
        nonlocal size, over
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            over = True
            return {"type": "http.disconnect"}
        return message

    async def give(message: Message) -> None:
        nonlocal over
        if over and message["type"] == "http.response.start":
            await refuse(413, "too_large", f"a request takes at most {limit} bytes")(
                {"type": "http"}, take, send
            )
        elif not over:
            await send(message)

    return take, give
