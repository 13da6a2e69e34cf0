# What is computed from all experiments of a study.


rule tabulate_study:
    input:
        [
            targets.layout.table(name)
            for targets in EXPERIMENTS.values()
            for name in ACROSS.sources
        ],
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
        results=str(ROOT),
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.tabulate_study --plan "$EMOPROBE_PLAN" --results {params.results} --study {wildcards.study} > {log} 2>&1'


rule report_study:
    input:
        [STUDY_FILES.table(name) for name in tables_of("tabulate_study")],
        [targets.layout.report for targets in EXPERIMENTS.values()],
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
        results=str(ROOT),
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.report_study --results {params.results} --study {wildcards.study} > {log} 2>&1'
