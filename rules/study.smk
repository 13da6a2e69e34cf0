# What is computed from all experiments of a study.


rule tabulate_study:
    """Gather the tables of all experiments."""
    input:
        tables=ACROSS.sources(),
    output:
        [STUDY_FILES.table(name) for name in tables_of("tabulate_study")],
    log:
        STUDY_FILES.log("tabulate_study"),
    conda:
        ENVIRONMENT
    params:
        script=script_command("tabulate_study"),
        plan=lambda wildcards, input: process.quoted(PLAN),
        experiments=list(EXPERIMENTS),
        code=triggers.code("tabulate_study"),
        results=results_folder,
    shell:
        "{params.script} --plan {params.plan} --results {params.results:q} --study {wildcards.study} {params.experiments} > {log:q} 2>&1"


rule report_study:
    """Write the page across experiments."""
    input:
        tables=[STUDY_FILES.table(name) for name in tables_of("tabulate_study")],
        reports=ACROSS.reports(),
    output:
        [STUDY_FILES.figure(name) for name in figures_of("report_study")],
        STUDY_FILES.report,
        STUDY_FILES.report_html,
    log:
        STUDY_FILES.log("report_study"),
    conda:
        ENVIRONMENT
    params:
        script=script_command("report_study"),
        code=triggers.code("report_study"),
        folder=study_folder,
    shell:
        "{params.script} --study {params.folder:q} > {log:q} 2>&1"
