"""Records, the DuckDB store, import, export and the demo's text. No torch and no gradio here."""
