# What is computed from all experiments of a study.


rule tabulate_study:
    input:
        ACROSS.sources(),
    output:
        [STUDY_FILES.table(name) for name in tables_of("tabulate_study")],
    log:
        STUDY_FILES.log("tabulate_study"),
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        experiments=list(EXPERIMENTS),
        code=triggers.code("tabulate_study"),
        results=results_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.tabulate_study --plan "$EMOPROBE_PLAN" --results {params.results} --study {wildcards.study} {params.experiments} > {log} 2>&1'


rule report_study:
    input:
        [STUDY_FILES.table(name) for name in tables_of("tabulate_study")],
        ACROSS.reports(),
    output:
        [STUDY_FILES.figure(name) for name in figures_of("report_study")],
        STUDY_FILES.report,
        STUDY_FILES.report_html,
    log:
        STUDY_FILES.log("report_study"),
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        code=triggers.code("report_study"),
        folder=study_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.report_study --study {params.folder} > {log} 2>&1'
