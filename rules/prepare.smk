# From the config to a model that can be loaded, and questions with gold answers.


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


rule prepare_samples:
    output:
        [FILES.sample(sample) for sample in SAMPLES],
    log:
        FILES.log("prepare_samples"),
    benchmark:
        FILES.benchmark("prepare_samples")
    retries: 0
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        data=TRIGGERS.data,
        folder=FILES.sample("").parent,
    message:
        "Drawing {CONFIG.dataset.samples} samples from {CONFIG.dataset.source}"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.prepare_samples --config "$EMOPROBE_CONFIG" --output {params.folder} > {log} 2>&1'


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
