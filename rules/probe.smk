# From activations to probes and directions.

if PROBES:

    rule probe_activations:
        input:
            FILES.table("trajectories"),
            activations(*ACTIVATION_FILES),
        output:
            [FILES.table(name) for name in tables_of("probe_activations")],
            FILES.directions(),
        log:
            FILES.log("probe_activations"),
        benchmark:
            FILES.benchmark("probe_activations")
        conda:
            "../envs/cpu.yaml"
        resources:
            cpus=2,
        params:
            probes=TRIGGERS.probes,
            labels=TRIGGERS.labels,
            folder=FILES.root,
        message:
            "Fitting linear probes"
        shell:
            '"$EMOPROBE_PYTHON" -m scripts.probe_activations --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'
