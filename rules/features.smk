# From trajectories to features: every token's activations at one layer, autoencoders on them, what differs with the tone.


# One shard a trajectory: a lost one is made again alone, and no step holds them all.
rule capture_tokens:
    """Capture one layer at every token of one trajectory."""
    input:
        state=tokens_from,
    output:
        [
            FILES.tokens("{variant}", "{sample}{draw}") / name
            for name in ACTIVATION_FILES
        ],
    log:
        FILES.log("tokens", "{variant}", "{sample}{draw}"),
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("tokens"),
        tokens=trigger("tokens"),
    shell:
        "{params.request} 2> {log:q}"


rule train_autoencoder:
    """Train a sparse autoencoder on the tokens."""
    input:
        known("autoencoder"),
        tokens=files_of("tokens"),
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
    params:
        script=script_command("train_autoencoder"),
        config=config_file,
        autoencoder=trigger("autoencoder"),
        code=triggers.code("train_autoencoder"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} {wildcards.autoencoder} > {log:q} 2>&1"


rule measure_autoencoders:
    """Measure how well autoencoders reconstruct."""
    input:
        known("measure_autoencoders"),
        tokens=files_of("tokens"),
        autoencoders=files_of("autoencoders"),
        model=FILES.model,
    output:
        [report_table(name) for name in tables_of("measure_autoencoders")],
    log:
        FILES.log("measure_autoencoders"),
    benchmark:
        FILES.benchmark("measure_autoencoders")
    conda:
        ENVIRONMENT
    threads: 2
    params:
        script=script_command("measure_autoencoders"),
        config=config_file,
        autoencoder=trigger("autoencoder"),
        evaluated=trigger("evaluated"),
        code=triggers.code("measure_autoencoders"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


rule analyze_features:
    """Test which features differ with the tone."""
    input:
        known("analyze_features"),
        tokens=files_of("tokens"),
        autoencoders=files_of("autoencoders"),
        model=FILES.model,
    output:
        [report_table(name) for name in tables_of("analyze_features")],
        FILES.feature_directions(),
    log:
        FILES.log("analyze_features"),
    benchmark:
        FILES.benchmark("analyze_features")
    conda:
        ENVIRONMENT
    threads: 2
    params:
        script=script_command("analyze_features"),
        config=config_file,
        autoencoder=trigger("autoencoder"),
        features=trigger("features"),
        references=trigger("references"),
        code=triggers.code("analyze_features"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


use rule draw_figures as draw_feature_figures with:
    input:
        known("draw_feature_figures"),
        tables=tables_for("draw_feature_figures"),
    output:
        [report_figure(name) for name in figures_of("draw_feature_figures")],
    log:
        FILES.log("draw_feature_figures"),
    params:
        script=script_command("draw_figures"),
        config=config_file,
        code=triggers.code("draw_figures"),
        names=figures_of("draw_feature_figures"),
        folder=experiment_folder,
