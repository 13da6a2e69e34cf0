# From activations to directions, and to trajectories that are steered along them. All are thin jobs of the pool.


localrules:
    fit_direction,
    steer,
    score,


rule fit_direction:
    input:
        fitted_on,
    output:
        FILES.direction("{direction}"),
    log:
        FILES.log("direction", "directions", "{direction}"),
    wildcard_constraints:
        experiment=experiments(lambda config: config.steering.enabled),
        direction="[A-Za-z0-9_-]+",
    retries: 0
    conda:
        ENVIRONMENT
    params:
        made_from=direction_trigger,
        code=triggers.code("fit_direction"),
    shell:
        'source "$EMOPROBE_CLIENT" direction {wildcards.experiment} directions {wildcards.direction} 2> {log}'


rule steer:
    input:
        steered_from,
    output:
        [
            FILES.steered("{condition}", "{variant}", "{sample}{draw}") / name
            for name in TRAJECTORY_FILES
        ],
    log:
        FILES.log("steer", "{condition}", "{variant}", "{sample}{draw}"),
    wildcard_constraints:
        experiment=experiments(lambda config: config.steering.enabled),
    # As for generate: the pool tries the next server by itself.
    retries: 0
    conda:
        ENVIRONMENT
    params:
        made_from=steered_trigger,
    shell:
        'source "$EMOPROBE_CLIENT" steer {wildcards.experiment} {wildcards.condition}/{wildcards.variant} {wildcards.sample}{wildcards.draw} 2> {log}'


rule score:
    input:
        scored_from,
    output:
        FILES.steered("{condition}", "{variant}", "{sample}{draw}") / SCORES,
    log:
        FILES.log("score", "{condition}", "{variant}", "{sample}{draw}"),
    wildcard_constraints:
        experiment=experiments(lambda config: config.steering.enabled),
    retries: 0
    conda:
        ENVIRONMENT
    params:
        scores=trigger("scores"),
    shell:
        'source "$EMOPROBE_CLIENT" score {wildcards.experiment} {wildcards.condition}/{wildcards.variant} {wildcards.sample}{wildcards.draw} 2> {log}'


rule tabulate_steering:
    input:
        files_of("steered", ["trajectory.jsonl", SCORES]),
    output:
        FILES.table("steering"),
    log:
        FILES.log("tabulate_steering"),
    benchmark:
        FILES.benchmark("tabulate_steering")
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        code=triggers.code("tabulate_steering"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.tabulate_steering --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'


rule analyze_steering:
    input:
        FILES.table("steering"),
        FILES.table("trajectories"),
        FILES.table("paired_tests"),
    output:
        [FILES.table(name) for name in tables_of("analyze_steering")],
    log:
        FILES.log("analyze_steering"),
    benchmark:
        FILES.benchmark("analyze_steering")
    conda:
        ENVIRONMENT
    resources:
        cpus=1,
    params:
        analysis=trigger("analysis"),
        coherence=trigger("coherence"),
        code=triggers.code("analyze_steering"),
        folder=experiment_folder,
    shell:
        '"$EMOPROBE_PYTHON" -m scripts.analyze_steering --config "$EMOPROBE_PLAN/{wildcards.experiment}.json" --experiment {params.folder} > {log} 2>&1'
