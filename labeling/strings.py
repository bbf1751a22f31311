"""The words of the screens, from `strings/*.yaml`: one flat file per language, English where one lacks a word.

    text("de", "turns", n=3)        "3 frühere Beiträge"

A key with two forms is stored as `turns.one` and `turns.many`; `n` chooses. Which language a page speaks: the
cookie `palate-language`, which the language switch in the help sets, else what the server was started with.
"""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from fastapi import Request

from palate.config import UserError

COOKIE = "palate-language"  # set by assets/panels.js
_HOLE = re.compile(r"\{(\w+)\}")


@cache
def languages() -> tuple[str, ...]:
    """The languages there are, English first."""
    found = {
        entry.name.removesuffix(".yaml")
        for entry in files("palate.labeling").joinpath("strings").iterdir()
        if entry.name.endswith(".yaml")
    }
    return ("en", *sorted(found - {"en"}))


def checked(language: str) -> str:
    """The language, or a UserError that names those that can be had."""
    if language not in languages():
        raise UserError(f"--language takes {', '.join(languages())}, got {language!r}")
    return language


@cache
def _read(language: str) -> dict[str, str]:
    file = files("palate.labeling").joinpath(f"strings/{language}.yaml")
    found: dict[str, str] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


@cache
def bundle(language: str) -> dict[str, str]:
    """Every word in one language; not to be changed, it is shared."""
    return {**_read("en"), **_read(checked(language))}


def text(language: str, key: str, **values: Any) -> str:
    """The words of `key` with {values} filled in; the key itself where there is none."""
    words = bundle(language)
    found = words.get(key) or words.get(f"{key}.one" if values.get("n") == 1 else f"{key}.many", key)
    return _HOLE.sub(lambda hole: str(values.get(hole[1], hole[0])), found)


def language_of(request: Request, default: str) -> str:
    """The language that this browser has chosen, else the default."""
    chosen = request.cookies.get(COOKIE, "")
    return chosen if chosen in languages() else default


def as_script(default: str) -> str:
    """All words as the page's first script: it takes the chosen language, and says so to the browser."""
    words = json.dumps({name: bundle(name) for name in languages()}, ensure_ascii=False).replace(
        "<", "\\u003c"
    )
    return f"""(() => {{
  const words = {words};
  const chosen = document.cookie.match(/(?:^|; ){COOKIE}=([a-z]+)/)?.[1];
  window.palateLanguages = Object.fromEntries(Object.entries(words).map(([name, all]) => [name, all["language.name"]]));
  window.palateLanguage = words[chosen] ? chosen : {json.dumps(checked(default))};
  window.palateStrings = words[window.palateLanguage];
  document.documentElement.lang = window.palateLanguage;
}})();"""
