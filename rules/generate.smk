# One trajectory a job. The job is a thin client of the pool, which runs the model servers: no rule depends on one.
# What such a job carries is paid for each trajectory, in the plan and in the run: no message, no resources.


rule generate:
    """Generate one trajectory."""
    input:
        # The plan needs the model, so that is there as well.
        question_and_plan=answered_from,
    output:
        [FILES.pair("{variant}", "{sample}{draw}") / name for name in TRAJECTORY_FILES],
    log:
        FILES.log("generate", "{variant}", "{sample}{draw}"),
    wildcard_constraints:
        experiment=experiments(lambda config: not config.captures_inline),
    priority: 10
    # The pool itself gives a failed request to the next server; what it gives up is not worth another try.
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("generate"),
        made_from=variant_trigger,
    shell:
        "{params.request} 2> {log:q}"


# With the backend nnsight, one request generates and captures.
use rule generate as generate_and_capture with:
    output:
        [FILES.pair("{variant}", "{sample}{draw}") / name for name in TRAJECTORY_FILES],
        [
            FILES.activations("{variant}", "{sample}{draw}") / name
            for name in ACTIVATION_FILES
        ],
    wildcard_constraints:
        experiment=experiments(lambda config: config.captures_inline),


# As outcomes, a file of its own. After the answers that are ready, so that their order is not the judge's.
rule judge:
    """Have one trajectory judged by another model."""
    input:
        state=judged_from,
    output:
        FILES.judgement("{judge}", "{variant}", "{sample}{draw}"),
    log:
        FILES.log("judge", "{judge}", "{variant}", "{sample}{draw}"),
    priority: 5
    # As for generate: the pool tries the next endpoint by itself.
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("judge"),
        judge=judge_trigger,
    shell:
        "{params.request} 2> {log:q}"


# A file of its own: a grader that is added later makes neither answers nor activations again.
rule outcomes:
    """Measure what graders ask the model about one trajectory."""
    input:
        state=measured_from,
    output:
        FILES.pair("{variant}", "{sample}{draw}") / OUTCOMES_FILE,
    log:
        FILES.log("outcomes", "{variant}", "{sample}{draw}"),
    # Soon after its answer, while the server has the prompt in its cache.
    priority: 11
    # As for generate: the pool tries the next server by itself.
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    threads: 0
    resources:
        requests=1,
    params:
        request=request("outcomes"),
        outcomes=trigger("outcomes"),
    shell:
        "{params.request} 2> {log:q}"
