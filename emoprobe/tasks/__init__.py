"""What is asked and how an answer counts: data sets, variants, requests, grading.

It imports `config` and `results`.
"""
