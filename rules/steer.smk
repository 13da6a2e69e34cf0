# From activations to directions, and to trajectories that are steered along them.


rule fit_direction:
    """Fit one direction on activations."""
    input:
        activations=fitted_on,
    output:
        FILES.direction("{direction}"),
    log:
        FILES.log("direction", "directions", "{direction}"),
    wildcard_constraints:
        direction="[A-Za-z0-9_-]+",
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    params:
        script=script_command("fit_direction"),
        config=config_file,
        folder=read_experiment_folder,
        made_from=direction_trigger,
        code=triggers.code("fit_direction"),
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} {wildcards.direction} > {log:q} 2>&1"


rule steer:
    """Generate one trajectory that is steered along a direction."""
    input:
        question_plan_and_direction=steered_from,
    output:
        [
            FILES.steered("{condition}", "{variant}", "{sample}{draw}") / name
            for name in TRAJECTORY_FILES
        ],
    log:
        FILES.log("steer", "{condition}", "{variant}", "{sample}{draw}"),
    # As for generate: the pool tries the next server by itself.
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("steer"),
        made_from=steered_trigger,
    shell:
        "{params.request} 2> {log:q}"


rule score:
    """Score one steered trajectory by forward passes."""
    input:
        state=scored_from,
    output:
        FILES.steered("{condition}", "{variant}", "{sample}{draw}") / SCORES,
    log:
        FILES.log("score", "{condition}", "{variant}", "{sample}{draw}"),
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("score"),
        scores=trigger("scores"),
    shell:
        "{params.request} 2> {log:q}"


rule tabulate_steering:
    """Write one row for each steered trajectory."""
    input:
        known("tabulate_steering"),
        steered=files_of("steered", ["trajectory.jsonl", SCORES]),
    output:
        report_table("steering"),
    log:
        FILES.log("tabulate_steering"),
    benchmark:
        FILES.benchmark("tabulate_steering")
    conda:
        ENVIRONMENT
    params:
        script=script_command("tabulate_steering"),
        config=config_file,
        code=triggers.code("tabulate_steering"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"


rule analyze_steering:
    """Compare what steering does, and the controls with it."""
    input:
        steering=FILES.table("steering"),
        trajectories=FILES.table("trajectories"),
        paired_tests=FILES.table("paired_tests"),
    output:
        [report_table(name) for name in tables_of("analyze_steering")],
    log:
        FILES.log("analyze_steering"),
    benchmark:
        FILES.benchmark("analyze_steering")
    conda:
        ENVIRONMENT
    params:
        script=script_command("analyze_steering"),
        config=config_file,
        analysis=trigger("analysis"),
        coherence=trigger("coherence"),
        code=triggers.code("analyze_steering"),
        folder=experiment_folder,
    shell:
        "{params.script} --config {params.config} --experiment {params.folder:q} > {log:q} 2>&1"
