"""Names under which pages know their items.

An assignment's id is a digest of what it shows, models' names and purpose included: who has the texts and guesses
the rest could check the guess. So pages get the id sealed with the project's key, and only what this key has
sealed is understood.

    aliases = Aliases(key_of(project.folder))
    aliases.opened(aliases.of(assignment_id)) == assignment_id
"""

import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from palate.config import UserError

KEY_FILE, KEY_BYTES = "label.key", 32
TAG = 8  # bytes that prove an alias: nobody has the time to guess them over HTTP
LONGEST = 40  # bytes of an id


def key_of(folder: Path) -> bytes:
    """The project's key, made at the first start; readable by its owner alone."""
    file = folder / KEY_FILE
    try:
        with suppress(FileExistsError), open(file, "xb", opener=_private) as new:
            new.write(os.urandom(KEY_BYTES))
            new.flush()
            os.fsync(new.fileno())
        key = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be written or read: {error}") from error
    if len(key) != KEY_BYTES:
        raise UserError(f"{file} holds {len(key)} bytes, not {KEY_BYTES}; remove it, and a new one is made")
    return key


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Aliases:
    """Seals ids and opens them again; the same id always gets the same alias, so drafts outlive a restart."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, name: str) -> str:
        """The alias of an id of at most 40 bytes, in at most 64 characters."""
        plain = name.encode("utf-8")
        if len(plain) > LONGEST:
            raise UserError(f"an assignment's id takes at most {LONGEST} bytes, got {name[:80]!r}")
        tag = self._tag(plain)
        return urlsafe_b64encode(tag + self._mixed(tag, plain)).decode().rstrip("=")

    def opened(self, alias: str) -> str:
        """The id behind an alias; empty for everything that this key has not sealed, ids themselves too."""
        try:
            sealed = urlsafe_b64decode(alias + "=" * (-len(alias) % 4))
            tag, plain = sealed[:TAG], self._mixed(sealed[:TAG], sealed[TAG : TAG + LONGEST])
            return plain.decode() if hmac.compare_digest(self._tag(plain), tag) else ""
        except ValueError:
            return ""

    def _tag(self, plain: bytes) -> bytes:
        return blake2b(plain, digest_size=TAG, key=self._key, person=b"palate-tag").digest()

    def _mixed(self, tag: bytes, text: bytes) -> bytes:
        pad = blake2b(tag, digest_size=LONGEST, key=self._key, person=b"palate-pad").digest()
        return bytes(a ^ b for a, b in zip(text, pad, strict=False))
