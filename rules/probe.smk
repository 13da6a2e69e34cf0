# From activations to probes and directions.


rule probe_activations:
    input:
        FILES.table("trajectories"),
        # The metadata are written in one step with the tensors, which may be in object storage.
        files_of("activations", ["metadata.json"]),
    output:
        [FILES.table(name) for name in tables_of("probe_activations")],
        FILES.directions(),
    log:
        FILES.log("probe_activations"),
    benchmark:
        FILES.benchmark("probe_activations")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        cpus=lambda wildcards, threads: threads,
    params:
        probes=trigger("probes"),
        analysis=trigger("analysis"),
        labels=trigger("labels"),
        code=triggers.code("probe_activations"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.probe_activations --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
