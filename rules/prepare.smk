# From the config to a model that can be loaded, and questions with gold answers.


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
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        model=TRIGGERS.model,
        cache=MODELS,
    message:
        "Preparing the model {CONFIG.model.source}"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.prepare_model --config "$EMOPROBE_CONFIG" --cache {params.cache} --output {output} > {log} 2>&1'


# A job a sample, so that drawing more concerns the new ones alone. The pool opens the data once for all of them.
rule prepare_sample:
    output:
        FILES.sample("{sample}"),
    log:
        FILES.log("sample", "questions", "{sample}"),
    priority: 20
    retries: 0
    conda:
        "../envs/cpu.yaml"
    params:
        data=TRIGGERS.data,
    message:
        "Drawing {wildcards.sample}"
    shell:
        'source "$EMOPROBE_CLIENT" sample questions {wildcards.sample} 2> {log}'


rule describe_experiment:
    input:
        model=FILES.model,
    output:
        FILES.resolved_yaml,
        FILES.resolved_json,
        FILES.metadata,
    log:
        FILES.log("describe_experiment"),
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        experiment=TRIGGERS.experiment,
        folder=FILES.root,
    message:
        "Writing down the experiment"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.describe_experiment --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'
