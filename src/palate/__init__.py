"""Palate turns people's preferences into a better language model.

palate.data        records, store, import, export, the demo's text
palate.labeling    the annotators' browser app, rule-based annotators, Review and its statistics
palate.sft         supervised fine-tuning: a starting model
palate.reward      learn what people prefer from their rankings
palate.rl          move the model towards it: DPO with LoRA
palate.evaluation  before and after: win rate, learned reward, KL, report
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("palate")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
