"""What a person reads: figures, statements, the page.

It imports `analysis` and what lies below it.
"""
