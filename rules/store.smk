# A copy of the activations in object storage, which Snakemake does not see: it tracks the records of what was copied.


localrules:
    push_activations,
    pull_activations,


rule push_activations:
    input:
        FILES.manifest,
        before_push,
    output:
        FILES.pushed,
    log:
        FILES.log("push_activations"),
    benchmark:
        FILES.benchmark("push_activations")
    wildcard_constraints:
        experiment=experiments(lambda config: config.pushes),
    # Requests are tried again by themselves.
    retries: 0
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        copied_to=storage_of,
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.push_activations --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


# Part of a plan where tensors are to be kept here, and are in object storage alone.
rule pull_activations:
    input:
        FILES.manifest,
    output:
        FILES.pulled,
    log:
        FILES.log("pull_activations"),
    benchmark:
        FILES.benchmark("pull_activations")
    wildcard_constraints:
        experiment=experiments(lambda config: config.pushes),
    retries: 0
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        copied_to=storage_of,
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.pull_activations --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
