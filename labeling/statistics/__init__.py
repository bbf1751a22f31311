"""Preference statistics: pure functions, and the panels that the Review screens, `palate stats`, the API and the
static page all show.

measures, agreement, bradley_terry, ...   the maths: arrays in, dataclasses out; no store, no HTML
*_section                                 one section of Review each: facts in, `Panel`s out
panels                                    what a panel is
report                                    all sections together
"""
