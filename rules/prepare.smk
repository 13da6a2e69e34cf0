# From the config to a model that can be loaded, a plan of the analysis, and questions with gold answers.


localrules:
    prepare_sample,


rule prepare_model:
    output:
        FILES.model,
    log:
        FILES.log("prepare_model"),
    benchmark:
        FILES.benchmark("prepare_model")
    # A wrong name stays wrong, and downloads are tried again by the hub's own library.
    retries: 0
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        model=trigger("model"),
        folder=experiment_folder,
        cache=MODELS,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.prepare_model --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --cache {params.cache} --output {output} > {log} 2>&1'


# A job a sample, so that drawing more concerns the new ones alone. The pool opens the data once for all of them.
rule prepare_sample:
    output:
        FILES.sample("{sample}"),
    log:
        FILES.log("sample", "questions", "{sample}"),
    priority: 20
    retries: 0
    conda:
        ENVIRONMENT
    params:
        data=trigger("data"),
    shell:
        'source "$EMOPROBE_CLIENT" sample {wildcards.experiment} questions {wildcards.sample} 2> {log}'


# Before the first answer: every trajectory waits for it. It is made again only where all answers are; what the analysis
# does otherwise afterwards, the report lists.
rule plan_analysis:
    input:
        planned_from,
    output:
        FILES.plan,
    log:
        FILES.log("plan_analysis"),
    priority: 30
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        answers=trigger("answers"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.plan_analysis --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


rule describe_experiment:
    input:
        FILES.model,
    output:
        FILES.resolved_yaml,
        FILES.resolved_json,
        FILES.metadata,
    log:
        FILES.log("describe_experiment"),
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        experiment=trigger("experiment"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.describe_experiment --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
