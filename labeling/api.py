"""The frame of /api/v1: one shape for every error, the OpenAPI description, and a page that shows it.

    {"error": {"code": "invalid", "message": "body.limit: Input should be less than or equal to 1000, got 5000"}}

Routes declare what they take and give; that they may refuse is the same for all and is added here.
"""

import html
import json
from importlib.metadata import version
from typing import Annotated, Any

import duckdb
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from palate.config import UserError
from palate.labeling.login import refuse, require

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_DESCRIBED = ("/api/v1/", "/healthz", "/readyz", "/metrics")
_CODES = {400: "invalid", 404: "not_found", 405: "not_allowed", 413: "too_large"}
# what any route may answer; the words of the description
_ERRORS = {
    "400": "It can't be done as asked: the message says why",
    "401": "Nobody is logged in, and no valid token came with the request",
    "403": "The role does not allow it",
    "404": "There is no such thing",
    "409": "It does not fit what is stored already",
    "413": "The request is too large",
    "422": "The request does not have the form that is described here",
    "429": "Too many requests",
    "503": "Nothing was stored; the same request may be sent again later",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


class Body(BaseModel):
    """A request's body: unknown fields are refused, since a misspelt one would be lost in silence."""

    model_config = ConfigDict(extra="forbid")


def _encodable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("half a character (a lone surrogate) can't be stored") from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_encodable)]  # any JSON object


def add_api(app: FastAPI) -> None:
    """Error handlers, the description, and an answer for what is not there. Called after the other routes."""

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return refuse(422, "invalid", explained(error))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "failed")
        return refuse(error.status_code, code, str(error.detail))

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> Response:
        return refuse(400, getattr(error, "code", "invalid"), str(error))

    @app.exception_handler(duckdb.Error)
    async def database_error(_: Request, error: duckdb.Error) -> Response:
        full = "No space left" in str(error)
        message = "the server's disk is full" if full else "the database does not answer"
        return refuse(503, "disk_full" if full else "unavailable", f"{message}: nothing was stored")

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    def description(request: Request) -> JSONResponse:
        require(request)
        return JSONResponse(openapi(app))

    @app.get("/api/v1/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        require(request, "lead")
        return HTMLResponse(docs_page(openapi(app)))

    @app.api_route("/api/v1/{rest:path}", methods=list(METHODS), include_in_schema=False)
    async def unknown(request: Request, rest: str) -> Response:
        require(request)
        allowed = _methods(app, request.scope)
        if not allowed:
            return refuse(404, "not_found", f"there is no /api/v1/{rest[:80]}; see /api/v1/docs")
        refusal = refuse(405, "not_allowed", f"/api/v1/{rest[:80]} takes {', '.join(sorted(allowed))}")
        refusal.headers["allow"] = ", ".join(sorted(allowed))
        return refusal


def explained(error: RequestValidationError) -> str:
    """What is wrong with a request, in one line: where, why, what was there."""
    errors = error.errors()
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    got = "" if first["type"] in ("missing", "json_invalid") else f", got {_short(first.get('input'))}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return " ".join(f"{where}: {first['msg']}{got}{more}".split())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def openapi(app: FastAPI) -> dict[str, Any]:
    """The description of what is under /api/v1 and of the health routes, with the errors that all share."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    found = get_openapi(
        title="Palate",
        version=version("palate"),
        description="Send a token as `Authorization: Bearer ...`; everybody makes theirs at /account.",
        routes=app.routes,
    )
    found["paths"] = {path: what for path, what in found["paths"].items() if path.startswith(_DESCRIBED)}
    parts = found.setdefault("components", {})
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schemas = parts.setdefault("schemas", {})
    schemas["Error"] = _ERROR_SCHEMA
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path, operations in found.get("paths", {}).items():
        for operation in operations.values() if path.startswith("/api/") else ():
            operation["security"] = [{"token": []}]
            for status, text in _ERRORS.items():
                operation["responses"][status] = {"description": text, "content": content}
    app.openapi_schema = found
    return found


def _methods(app: FastAPI, scope: Any) -> set[str]:
    """What a path may be asked with, when only the method was wrong."""
    path = scope["path"].removeprefix(scope.get("root_path") or "")
    return {
        method.upper()
        for template, operations in openapi(app)["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    }


def docs_page(description: dict[str, Any]) -> str:
    """The description as one plain page, without scripts and without anything from elsewhere."""
    rows = []
    for path, operations in sorted(description.get("paths", {}).items()):
        for method, operation in operations.items():
            about = " ".join(str(operation.get("description", "")).split())
            rows.append(
                f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
                f"<td>{html.escape(about)}</td></tr>"
            )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Palate API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>body{font:16px system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}"
        "td{padding:.3rem .6rem;vertical-align:top;border-top:1px solid #8884}code{white-space:nowrap}</style>"
        "</head><body><h1>Palate API</h1><p>Send a token as <code>Authorization: Bearer ...</code>. "
        'The machine-readable description is <a href="openapi.json">openapi.json</a>.</p>'
        f"<table>{''.join(rows)}</table></body></html>"
    )
