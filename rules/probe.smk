# From activations to probes and directions.


rule probe_activations:
    input:
        FILES.table("trajectories"),
        files_of("activations"),
    output:
        [FILES.table(name) for name in tables_of("probe_activations")],
        FILES.directions(),
    log:
        FILES.log("probe_activations"),
    benchmark:
        FILES.benchmark("probe_activations")
    conda:
        ENVIRONMENT
    resources:
        cpus=2,
    params:
        probes=trigger("probes"),
        analysis=trigger("analysis"),
        labels=trigger("labels"),
        code=triggers.code("probe_activations"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.probe_activations --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
