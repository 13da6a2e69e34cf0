# A copy of the activations in object storage, which Snakemake does not see: it tracks the records of what was copied.


rule push_activations:
    """Copy activations to object storage."""
    input:
        manifest=FILES.manifest,
        first=before_push,
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
    localrule: True
    conda:
        ENVIRONMENT
    params:
        script=script_command("push_activations"),
        config=config_file,
        copied_to=storage_of,
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


# Part of a plan where tensors are to be kept here, and are in object storage alone.
rule pull_activations:
    """Bring activations back from object storage."""
    input:
        manifest=FILES.manifest,
    output:
        FILES.pulled,
    log:
        FILES.log("pull_activations"),
    benchmark:
        FILES.benchmark("pull_activations")
    wildcard_constraints:
        experiment=experiments(lambda config: config.pushes),
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    params:
        script=script_command("pull_activations"),
        config=config_file,
        copied_to=storage_of,
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"
