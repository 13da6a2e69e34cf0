# From trajectories to tables and headline numbers.


rule tabulate_trajectories:
    input:
        trajectories(),
    output:
        FILES.table("trajectories"),
    log:
        FILES.log("tabulate_trajectories"),
    benchmark:
        FILES.benchmark("tabulate_trajectories")
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        labels=TRIGGERS.labels,
        folder=FILES.root,
    message:
        "Gathering all trajectories in one table"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.tabulate_trajectories --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'


rule analyze_behaviour:
    input:
        FILES.table("trajectories"),
    output:
        FILES.table("accuracy"),
        FILES.table("workers"),
    log:
        FILES.log("analyze_behaviour"),
    benchmark:
        FILES.benchmark("analyze_behaviour")
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        folder=FILES.root,
    message:
        "Comparing the variants with control"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.analyze_behaviour --experiment {params.folder} > {log} 2>&1'


rule report_experiment:
    input:
        FILES.table("trajectories"),
        FILES.table("accuracy"),
        FILES.table("workers"),
        FILES.metadata,
    output:
        FILES.report,
    log:
        FILES.log("report_experiment"),
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        folder=FILES.root,
    message:
        "Writing the headline numbers"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.report_experiment --experiment {params.folder} > {log} 2>&1'
