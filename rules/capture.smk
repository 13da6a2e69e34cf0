# One activation folder a trajectory, where they lie, and whether they are whole.


localrules:
    capture,


rule capture:
    input:
        captured_from,
    output:
        [
            FILES.activations("{variant}", "{sample}{draw}") / name
            for name in ACTIVATION_FILES
        ],
    log:
        FILES.log("capture", "{variant}", "{sample}{draw}"),
    wildcard_constraints:
        experiment=experiments(lambda config: not config.captures_inline),
    # As for generate: the pool tries the next server by itself.
    retries: 0
    conda:
        ENVIRONMENT
    params:
        capture=trigger("capture"),
    shell:
        'source "$EMOPROBE_CLIENT" capture {wildcards.experiment} {wildcards.variant} {wildcards.sample}{wildcards.draw} 2> {log}'


rule list_activations:
    input:
        files_of("activations", ["metadata.json"]),
    output:
        FILES.manifest,
    log:
        FILES.log("list_activations"),
    benchmark:
        FILES.benchmark("list_activations")
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.list_activations --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


rule verify:
    input:
        files_of("trajectories", ["trajectory.jsonl"]),
        files_of("manifest"),
        files_of("steered", ["trajectory.jsonl", SCORES]),
    output:
        FILES.verified,
    log:
        FILES.log("verify"),
    benchmark:
        FILES.benchmark("verify")
    retries: 0
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.verify --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
