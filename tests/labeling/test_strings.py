"""The words of the screens: both languages hold the same keys and holes, every key that is used is there, and
every key that is there is used."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from fastapi import Request

from palate.config import UserError
from palate.labeling import strings
from palate.labeling.ballots import FLAGS, REASONS

LABELING = Path(str(files("palate.labeling")))
SOURCES = sorted([*LABELING.glob("assets/*.js"), *LABELING.glob("*.py"), *LABELING.glob("templates/*.jinja")])
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
KEYS = sorted(strings.bundle("en"))
HOLE = re.compile(r"\{(\w+)\}")


def used() -> tuple[set[str], list[re.Pattern[str]]]:
    """(keys that stand somewhere as a whole, patterns of keys that are put together)."""
    quoted = re.findall(r"""["'`]([a-z][a-z0-9_.${}()]*)["'`]""", TEXT)
    quoted += re.findall(r"`([a-z][a-z0-9_]*\.[^`\s]*\$\{[^`\s]*)`", TEXT)
    patterns = [
        re.compile("[a-z0-9_]+".join(re.escape(part) for part in re.split(r"\$?\{[^}]*\}", key)))
        for key in quoted
        if "{" in key and "." in key.partition("{")[0]
    ]
    return set(quoted), patterns


def test_both_languages_hold_the_same_keys() -> None:
    assert strings.languages() == ("en", "de")
    assert sorted(strings._read("de")) == KEYS
    for language in strings.languages():
        words = strings._read(language)
        wrong = {key for key, value in words.items() if not isinstance(value, str) or not value.strip()}
        assert not wrong, f"{language}: {sorted(wrong)}"


@pytest.mark.parametrize("language", strings.languages())
def test_holes_are_the_same(language: str) -> None:
    words = strings.bundle(language)
    differ = {k for k in KEYS if set(HOLE.findall(words[k])) != set(HOLE.findall(strings.bundle("en")[k]))}
    assert not differ


def test_no_key_is_unused() -> None:
    whole, patterns = used()
    unused = [
        key
        for key in KEYS
        if key not in whole
        and re.sub(r"\.(one|many)$", "", key) not in whole
        and not any(pattern.fullmatch(key) for pattern in patterns)
    ]
    assert not unused


def test_every_used_key_is_there() -> None:
    asked = set(re.findall(r"""\bt\(\s*["']([a-z0-9_.]+)["']""", TEXT))
    asked |= set(re.findall(r'\bdata-t(?:-label|-title|-hint)?="([a-z_.0-9]+)"', TEXT))
    asked |= set(re.findall(r'\badd\("[^"]+", "([a-z_.]+)"', TEXT))
    asked |= set(re.findall(r'\bt\["([a-z_.0-9]+)"\]', TEXT))
    asked |= {f"reason.{name}" for name in REASONS} | {f"flag.{name}" for name in FLAGS}
    asked |= {f"note.{code}" for code in ("filled", "answered", "not_yours", "lost")}
    asked |= {f"practice.{step}" for step in ("choose", "flag", "submit", "undo", "done")}
    missing = {key for key in asked if key not in KEYS and f"{key}.one" not in KEYS}
    assert len(asked) > 100 and not missing


def test_two_forms() -> None:
    assert strings.text("en", "turns", n=1) == "1 earlier turn"
    assert strings.text("de", "turns", n=3) == "3 frühere Beiträge"


def test_values_are_filled_in_as_they_are() -> None:
    assert strings.text("en", "card.label", letter="{n}") == "Answer {n}"
    assert strings.text("en", "card.label") == "Answer {letter}"
    assert strings.text("en", "no.such.key", n=2) == "no.such.key"


def test_a_word_that_is_missing_is_english(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"en": {"a": "one", "b": "two"}, "de": {"a": "eins"}}
    monkeypatch.setattr(strings, "_read", short.__getitem__)
    strings.bundle.cache_clear()
    try:
        assert strings.bundle("de") == {"a": "eins", "b": "two"}
    finally:
        monkeypatch.undo()
        strings.bundle.cache_clear()


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserError, match="--language takes en, de, got 'fr'"):
        strings.checked("fr")


@pytest.mark.parametrize(
    ("cookie", "expected"), [("", "en"), ("palate-language=de", "de"), ("palate-language=xx", "en")]
)
def test_a_browser_chooses(cookie: str, expected: str) -> None:
    request = Request({"type": "http", "headers": [(b"cookie", cookie.encode())]})
    assert strings.language_of(request, "en") == expected


def test_polite_german() -> None:
    informal = [
        key
        for key, words in strings.bundle("de").items()
        if re.search(r"\b([Dd]u|[Dd]ein\w*|[Dd]ir|[Dd]ich)\b", words)
    ]
    assert not informal


def test_the_script_cannot_be_ended_by_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"language.name": "x", "bad": "</script><script>alert(1)</script>"}
    monkeypatch.setattr(strings, "bundle", lambda _: words)
    script = strings.as_script("en")
    assert "<" not in script
    held = re.search(r"const words = (.*);\n", script)
    assert held and json.loads(held[1])["de"]["bad"] == words["bad"]
