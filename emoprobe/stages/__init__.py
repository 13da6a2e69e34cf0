"""The stages from trajectories to a report, a module each: from files of an experiment's folder to files in it.

A rule of the workflow runs one of them; `folder` runs them all in a folder that anybody made. They import every other
part of the library and know nothing of Snakemake.
"""
