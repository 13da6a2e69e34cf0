# From trajectories to features: every token's activations at one layer, autoencoders on them, what differs with the tone.


localrules:
    capture_tokens,


# One shard a trajectory: a lost one is made again alone, and no step holds them all.
rule capture_tokens:
    input:
        tokens_from,
    output:
        [
            FILES.tokens("{variant}", "{sample}{draw}") / name
            for name in ACTIVATION_FILES
        ],
    log:
        FILES.log("tokens", "{variant}", "{sample}{draw}"),
    retries: 0
    conda:
        ENVIRONMENT
    params:
        tokens=trigger("tokens"),
    shell:
        'source "$EMOPROBE_CLIENT" tokens {wildcards.experiment} {wildcards.variant} {wildcards.sample}{wildcards.draw} 2> {log}'


rule train_autoencoder:
    input:
        files_of("tokens"),
    output:
        [FILES.autoencoder("{autoencoder}") / name for name in AUTOENCODER_FILES],
    log:
        FILES.log("train_autoencoder", "{autoencoder}"),
    benchmark:
        FILES.benchmark("train_autoencoder_{autoencoder}")
    wildcard_constraints:
        autoencoder="seed-[0-9]+",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        cpus=lambda wildcards, threads: threads,
    params:
        autoencoder=trigger("autoencoder"),
        code=triggers.code("train_autoencoder"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.train_autoencoder --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} {wildcards.autoencoder} > {log} 2>&1'


rule measure_autoencoders:
    input:
        files_of("tokens"),
        files_of("autoencoders"),
        FILES.model,
    output:
        [FILES.table(name) for name in tables_of("measure_autoencoders")],
    log:
        FILES.log("measure_autoencoders"),
    benchmark:
        FILES.benchmark("measure_autoencoders")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        cpus=lambda wildcards, threads: threads,
    params:
        autoencoder=trigger("autoencoder"),
        evaluated=trigger("evaluated"),
        code=triggers.code("measure_autoencoders"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.measure_autoencoders --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


rule analyze_features:
    input:
        files_of("tokens"),
        files_of("autoencoders"),
        FILES.model,
    output:
        [FILES.table(name) for name in tables_of("analyze_features")],
        FILES.feature_directions(),
    log:
        FILES.log("analyze_features"),
    benchmark:
        FILES.benchmark("analyze_features")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        cpus=lambda wildcards, threads: threads,
    params:
        autoencoder=trigger("autoencoder"),
        features=trigger("features"),
        references=trigger("references"),
        code=triggers.code("analyze_features"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.analyze_features --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


use rule draw_figures as draw_feature_figures with:
    input:
        tables_for("draw_feature_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_feature_figures")],
    log:
        FILES.log("draw_feature_figures"),
    params:
        code=triggers.code("draw_figures"),
        names=figures_of("draw_feature_figures"),
        folder=experiment_folder,
