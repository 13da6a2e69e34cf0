# One activation folder a trajectory, where they lie, and whether they are whole.


rule capture:
    """Capture the activations of one trajectory: its tokens once more, in one forward pass."""
    input:
        state=captured_from,
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
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("capture"),
        capture=trigger("capture"),
    shell:
        "{params.request} 2> {log:q}"


rule list_activations:
    """List every activation folder with its hashes."""
    input:
        known("list_activations"),
        activations=files_of("activations", ["metadata.json"]),
    output:
        FILES.manifest,
    log:
        FILES.log("list_activations"),
    benchmark:
        FILES.benchmark("list_activations")
    conda:
        ENVIRONMENT
    params:
        script=script_command("list_activations"),
        config=config_file,
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


rule verify:
    """Check every trajectory and activation folder."""
    input:
        trajectories=files_of("trajectories", ["trajectory.jsonl"]),
        outcomes=files_of("outcomes"),
        judgements=files_of("judgements"),
        manifest=files_of("manifest"),
        steered=files_of("steered", ["trajectory.jsonl", SCORES]),
        tokens=files_of("tokens", ["metadata.json"]),
    output:
        FILES.verified,
    log:
        FILES.log("verify"),
    benchmark:
        FILES.benchmark("verify")
    retries: 0
    conda:
        ENVIRONMENT
    params:
        script=script_command("verify"),
        config=config_file,
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"
