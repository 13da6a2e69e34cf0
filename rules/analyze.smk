# From trajectories to tables, figures and the report.


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
        [FILES.table(name) for name in tables_of("analyze_behaviour")],
    log:
        FILES.log("analyze_behaviour"),
    benchmark:
        FILES.benchmark("analyze_behaviour")
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        references=CONFIG.analysis.references,
        margin=CONFIG.analysis.margin,
        folder=FILES.root,
    message:
        "Comparing the variants with control"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.analyze_behaviour --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'


rule draw_figures:
    input:
        tables(),
    output:
        [
            report(
                FILES.figure(name),
                caption=FIGURES[name].caption_file,
                category=FIGURES[name].part,
                labels={"figure": name.replace("_", " ")},
            )
            for name in figures()
        ],
    log:
        FILES.log("draw_figures"),
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        folder=FILES.root,
    message:
        "Drawing the figures"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.draw_figures --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'


rule report_experiment:
    input:
        tables(),
        [FILES.figure(name) for name in figures()],
        FILES.metadata,
    output:
        report(
            FILES.report,
            caption="../emoprobe/report/captions/report.rst",
            category="Numbers",
            labels={"figure": "headline numbers"},
        ),
        FILES.report_html,
    log:
        FILES.log("report_experiment"),
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        folder=FILES.root,
    message:
        "Writing the report"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.report_experiment --experiment {params.folder} > {log} 2>&1'
