# From the config to a model that can be loaded, a plan of the analysis, and questions with gold answers.


rule prepare_model:
    """Make the model loadable and write its card."""
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
    params:
        script=script_command("prepare_model"),
        config=config_file,
        model=trigger("model"),
        folder=experiment_folder,
        cache=MODELS,
    shell:
        "{params.script} --config {params.config} --cache {params.cache:q} --output {output:q} > {log:q} 2>&1"


# Of a judge that the run serves.
use rule prepare_model as prepare_judge_model with:
    output:
        FILES.judge_model("{judge}"),
    log:
        FILES.log("prepare_model", "{judge}"),
    benchmark:
        FILES.benchmark("prepare_model-{judge}")
    wildcard_constraints:
        judge=one_of({name for each in TRIGGERS.values() for name in each.judge_models}),
    params:
        script=judge_model_command,
        config=config_file,
        model=judge_model_trigger,
        folder=experiment_folder,
        cache=MODELS,


# A job a sample, so that drawing more concerns the new ones alone. The executor of this project has one process draw all.
rule prepare_sample:
    """Draw one question from the data set."""
    input:
        known("sample"),
    output:
        FILES.sample("{sample}"),
    log:
        FILES.log("sample", "questions", "{sample}"),
    priority: 20
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=sample_request,
        data=sample_trigger,
    shell:
        "{params.request} 2> {log:q}"


# Before the first answer: every trajectory waits for it. It is made again only where all answers are; what the analysis
# does otherwise afterwards, the report lists.
rule plan_analysis:
    """Register what will be tested, before the first answer."""
    input:
        model=planned_from,
    output:
        FILES.plan,
    log:
        FILES.log("plan_analysis"),
    priority: 30
    conda:
        ENVIRONMENT
    params:
        script=script_command("plan_analysis"),
        config=config_file,
        answers=trigger("answers"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


rule describe_experiment:
    """Write the resolved config, versions, seed and hardware."""
    input:
        model=FILES.model,
    output:
        FILES.resolved_yaml,
        FILES.resolved_json,
        FILES.metadata,
    log:
        FILES.log("describe_experiment"),
    conda:
        ENVIRONMENT
    params:
        script=script_command("describe_experiment"),
        config=config_file,
        experiment=trigger("experiment"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"
