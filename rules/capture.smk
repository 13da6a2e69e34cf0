# One activation folder a trajectory, where they lie, and whether they are whole.

if CAPTURE and not INLINE:

    localrules:
        capture,

    rule capture:
        input:
            trajectory=FILES.pair("{variant}", "{sample}") / "agent_state.json",
            model=FILES.model,
        output:
            [
                FILES.activations("{variant}", "{sample}") / name
                for name in ACTIVATION_FILES
            ],
        log:
            FILES.log("capture", "{variant}", "{sample}"),
        # As for generate: the pool tries the next server by itself.
        retries: 0
        conda:
            "../envs/cpu.yaml"
        params:
            capture=TRIGGERS.capture,
        message:
            "Capturing {wildcards.variant}/{wildcards.sample}"
        shell:
            'source "$EMOPROBE_CLIENT" capture {wildcards.variant} {wildcards.sample} 2> {log}'


rule list_activations:
    input:
        activations("metadata.json"),
    output:
        FILES.manifest,
    log:
        FILES.log("list_activations"),
    benchmark:
        FILES.benchmark("list_activations")
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        folder=FILES.root,
    message:
        "Listing all activations"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.list_activations --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'


rule verify:
    input:
        trajectories(),
        FILES.manifest if CAPTURE else [],
    output:
        FILES.verified,
    log:
        FILES.log("verify"),
    benchmark:
        FILES.benchmark("verify")
    retries: 0
    conda:
        "../envs/cpu.yaml"
    resources:
        cpus=1,
    params:
        folder=FILES.root,
    message:
        "Checking every trajectory and activation folder"
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.verify --config "$EMOPROBE_CONFIG" --experiment {params.folder} > {log} 2>&1'
