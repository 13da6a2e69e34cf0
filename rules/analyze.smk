# From trajectories to tables, figures and the report.


rule tabulate_trajectories:
    input:
        files_of("trajectories", ["trajectory.jsonl"]),
    output:
        FILES.table("trajectories"),
    log:
        FILES.log("tabulate_trajectories"),
    benchmark:
        FILES.benchmark("tabulate_trajectories")
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        labels=trigger("labels"),
        code=triggers.code("tabulate_trajectories"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.tabulate_trajectories --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


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
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        analysis=trigger("analysis"),
        code=triggers.code("analyze_behaviour"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.analyze_behaviour --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


rule draw_figures:
    input:
        tables_for("draw_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_figures")],
    log:
        FILES.log("draw_figures"),
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        code=triggers.code("draw_figures"),
        names=figures_of("draw_figures"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.draw_figures --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} {params.names} > {log} 2>&1'


use rule draw_figures as draw_probe_figures with:
    input:
        tables_for("draw_probe_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_probe_figures")],
    log:
        FILES.log("draw_probe_figures"),
    params:
        code=triggers.code("draw_figures"),
        names=figures_of("draw_probe_figures"),
        folder=experiment_folder,


use rule draw_figures as draw_steering_figures with:
    input:
        tables_for("draw_steering_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_steering_figures")],
    log:
        FILES.log("draw_steering_figures"),
    params:
        code=triggers.code("draw_figures"),
        names=figures_of("draw_steering_figures"),
        folder=experiment_folder,


rule report_experiment:
    input:
        files_of("tables"),
        files_of("figures"),
        FILES.metadata,
        FILES.plan,
    output:
        report(
            FILES.report,
            caption="../emoprobe/report/captions/report.rst",
            category="Numbers",
            labels={"figure": "headline numbers", "experiment": "{experiment}"},
        ),
        FILES.report_html,
    log:
        FILES.log("report_experiment"),
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        code=triggers.code("report_experiment"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.report_experiment --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
