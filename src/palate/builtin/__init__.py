"""The built-in base model: an ordinary Hugging Face Llama folder of a few megabytes, made by `build.py`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
