# Targets by name. `snakemake --list-target-rules` lists them; rules with wildcards are reached by file.


rule trajectories:
    """The answers of every variant to every question with their judgements, steered ones as well."""
    input:
        of_all("trajectories"),
        of_all("outcomes"),
        of_all("judgements"),
        of_all("steered"),
    localrule: True


rule activations:
    """The captured activations, with their list."""
    input:
        of_all("activations", ["metadata.json"]),
        of_all("tensors"),
        of_all("tokens"),
        of_all("manifest"),
    localrule: True


rule tables:
    """Every table, of the experiments and across them."""
    input:
        of_all("tables"),
        ACROSS.tables(),
    localrule: True


rule figures:
    """Every figure, of the experiments and across them."""
    input:
        of_all("figures"),
        ACROSS.figures(),
    localrule: True


rule explorer:
    """The pages that show every conversation."""
    input:
        of_all("explorer"),
    localrule: True


rule report:
    """The reports, of the experiments and across them, with the explorers that they link to."""
    input:
        of_all("report"),
        of_all("explorer"),
        ACROSS.report(),
    localrule: True


# A folder of results on the command line, such as results/pilot/joy, is a rule of that name: Snakemake empties a
# directory() before its job, and lets nothing else write there.
for folder, files in DIRECTORIES.items():

    rule:
        name:
            folder
        input:
            files,
        localrule: True
