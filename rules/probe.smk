# From activations to probes and directions.


rule probe_activations:
    """Fit probes on activations and write directions."""
    input:
        known("probe_activations"),
        trajectories=FILES.table("trajectories"),
        # The metadata are written in one step with the tensors, which may be in object storage.
        activations=files_of("activations", ["metadata.json"]),
    output:
        [report_table(name) for name in tables_of("probe_activations")],
        FILES.directions(),
    log:
        FILES.log("probe_activations"),
    benchmark:
        FILES.benchmark("probe_activations")
    conda:
        ENVIRONMENT
    threads: 2
    params:
        script=script_command("probe_activations"),
        config=config_file,
        probes=trigger("probes"),
        analysis=trigger("analysis"),
        labels=trigger("labels"),
        code=triggers.code("probe_activations"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"
