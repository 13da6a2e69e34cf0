# From trajectories to tables, figures and the report.


rule tabulate_trajectories:
    """Grade every trajectory and write one row for each."""
    input:
        trajectories=files_of("trajectories", ["trajectory.jsonl"]),
        outcomes=files_of("outcomes"),
        judgements=files_of("judgements"),
    output:
        report_table("trajectories"),
    log:
        FILES.log("tabulate_trajectories"),
    benchmark:
        FILES.benchmark("tabulate_trajectories")
    conda:
        ENVIRONMENT
    params:
        script=script_command("tabulate_trajectories"),
        config=config_file,
        labels=trigger("labels"),
        graded=trigger("graded"),
        code=triggers.code("tabulate_trajectories"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


rule analyze_behaviour:
    """Compare what the variants do: accuracies, tests, text features, agreement of draws."""
    input:
        trajectories=FILES.table("trajectories"),
        labels=files_of("label_files"),
        plan=FILES.plan,
    output:
        [report_table(name) for name in tables_of("analyze_behaviour")],
    log:
        FILES.log("analyze_behaviour"),
    benchmark:
        FILES.benchmark("analyze_behaviour")
    conda:
        ENVIRONMENT
    params:
        script=script_command("analyze_behaviour"),
        config=config_file,
        analysis=trigger("analysis"),
        graders=trigger("graders"),
        code=triggers.code("analyze_behaviour"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


# For people, who work on a copy: it is written again where the trajectories change.
rule list_answers_to_label:
    """List the answers that people may label, in random order and without their variants."""
    input:
        known("list_answers_to_label"),
        trajectories=FILES.table("trajectories"),
    output:
        FILES.to_label,
    log:
        FILES.log("list_answers_to_label"),
    conda:
        ENVIRONMENT
    params:
        script=script_command("list_answers_to_label"),
        config=config_file,
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


rule draw_figures:
    """Draw the figures of behaviour."""
    input:
        tables=tables_for("draw_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_figures")],
    log:
        FILES.log("draw_figures"),
    conda:
        ENVIRONMENT
    params:
        script=script_command("draw_figures"),
        config=config_file,
        code=triggers.code("draw_figures"),
        names=figures_of("draw_figures"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} {params.names} > {log:q} 2>&1"


use rule draw_figures as draw_probe_figures with:
    input:
        known("draw_probe_figures"),
        tables=tables_for("draw_probe_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_probe_figures")],
    log:
        FILES.log("draw_probe_figures"),
    params:
        script=script_command("draw_figures"),
        config=config_file,
        code=triggers.code("draw_figures"),
        names=figures_of("draw_probe_figures"),
        folder=experiment_folder,


use rule draw_figures as draw_steering_figures with:
    input:
        known("draw_steering_figures"),
        tables=tables_for("draw_steering_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_steering_figures")],
    log:
        FILES.log("draw_steering_figures"),
    params:
        script=script_command("draw_figures"),
        config=config_file,
        code=triggers.code("draw_figures"),
        names=figures_of("draw_steering_figures"),
        folder=experiment_folder,


rule report_experiment:
    """Write the report, as a page and as numbers."""
    input:
        tables=files_of("tables"),
        figures=files_of("figures"),
        metadata=FILES.metadata,
        plan=FILES.plan,
    output:
        report(
            FILES.report,
            caption="../emoprobe/report/captions/report.rst",
            category="Numbers",
            labels={"figure": "headline numbers", "experiment": "{experiment}"},
        ),
        report(
            FILES.report_html,
            caption="../emoprobe/report/captions/report.rst",
            category="Report",
            labels={"figure": "report page", "experiment": "{experiment}"},
        ),
    log:
        FILES.log("report_experiment"),
    conda:
        ENVIRONMENT
    params:
        script=script_command("report_experiment"),
        config=config_file,
        code=triggers.code("report_experiment"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


# A folder of scripts, of which the page is written last. It is read offline and has a link to the report and back.
rule build_explorer:
    """Write the explorer, which shows every conversation."""
    input:
        files_of("explorer_sources"),
    output:
        FILES.explorer,
    log:
        FILES.log("build_explorer"),
    benchmark:
        FILES.benchmark("build_explorer")
    conda:
        ENVIRONMENT
    params:
        script=script_command("build_explorer"),
        config=config_file,
        labels=trigger("labels"),
        references=trigger("references"),
        code=triggers.code("build_explorer"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"
