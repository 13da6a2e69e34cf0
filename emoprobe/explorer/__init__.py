"""The explorer: every conversation of an experiment, to read offline in a browser.

`conversations` and `steered` gather what is shown, `answers` finds where an extracted answer is written, `search` makes
the index of words, `projections` and `tokens` project activations on directions, `files` puts all of it into `scripts`
of limited size. `web/` holds the sources of the page and `assets/` the page that `make explorer` builds from them.
Imports `analysis`, `config`, `graders`, `models` and `results`.
"""
