"""How often a sentence of a report is false where the truth is known by construction."""
