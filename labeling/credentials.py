"""What people prove themselves with: passwords, and the secrets in cookies, tokens and links.

Passwords are stored as scrypt with a salt of their own; a check costs about 0.2 s and 16 MB on purpose and
always takes the same time, so callers keep it off the event loop. Other secrets are random 256 bits: of those
a plain SHA-256 is kept.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from palate.config import UserError

COST = (2**14, 8, 5)  # n, r, p: 16 MB and five passes, the smallest memory of OWASP's equal settings
LENGTH = (10, 1000)  # characters
TOKEN_PATHS = ("/api/v1/", "/metrics")  # where a token counts


def checked(password: str, name: str = "") -> str:
    """The password, if it is good enough for the account `name`; else a UserError that says why not."""
    least, most = LENGTH
    if not least <= len(password) <= most:
        raise UserError(
            f"a password takes {least} to {most} characters, this one has {len(password)}; "
            "a few words in a row are easy to keep in mind"
        )
    if name and password.casefold() == name.casefold():
        raise UserError("a password can't be the name; choose another one")
    return password


def hashed(password: str) -> str:
    """`scrypt$n$r$p$salt$hash`, as it is stored."""
    n, r, p = COST
    salt = os.urandom(16)
    return f"scrypt${n}${r}${p}${_text(salt)}${_text(_scrypt(password, salt, n, r, p))}"


def verify(password: str, stored: str | None) -> bool:
    """Whether the password belongs to the stored hash. Without one it takes just as long, and is False."""
    kind, n, r, p, salt, digest = (stored or _nobody()).split("$")
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    same = hmac.compare_digest(found, base64.b64decode(digest))
    return same and stored is not None and kind == "scrypt"


@cache
def _nobody() -> str:
    """A hash that no password belongs to."""
    return hashed(os.urandom(32).hex())


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")  # a JSON body may hold half a character
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r + 2**20, dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def sha256(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def brought(scope: Mapping[str, Any], cookie: str) -> tuple[str | None, str | None]:
    """(token, session secret) that a request brings. Where tokens count, one is judged alone."""
    token = secret = None
    path = str(scope["path"]).removeprefix(scope.get("root_path") or "")
    mark = f"{cookie}=".encode()
    for name, value in scope["headers"]:
        if name == b"authorization" and path.startswith(TOKEN_PATHS) and value[:7].lower() == b"bearer ":
            token = value[7:].strip().decode("latin-1")
        elif name == b"cookie":
            for part in value.split(b";"):
                if part.strip().startswith(mark):
                    secret = part.strip()[len(mark) :].decode("latin-1")
    return token, secret
