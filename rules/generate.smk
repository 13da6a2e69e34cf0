# One trajectory a job. The job is a thin client of the pool, which runs the model servers: no rule depends on one.


localrules:
    generate,


rule generate:
    input:
        # ancient: drawing more samples writes the old ones again, unchanged. What they hold is in params.data.
        sample=ancient(FILES.sample("{sample}")),
        model=ancient(FILES.model),
    output:
        [FILES.pair("{variant}", "{sample}") / name for name in TRAJECTORY_FILES],
        [FILES.activations("{variant}", "{sample}") / name for name in ACTIVATION_FILES if INLINE],
    log:
        FILES.log("generate", "{variant}", "{sample}"),
    # The pool itself gives a failed request to the next server; what it gives up is not worth another try.
    retries: 0
    priority: 10
    params:
        model=TRIGGERS.model,
        data=TRIGGERS.data,
        prompt=TRIGGERS.prompt,
        generation=TRIGGERS.generation,
        variant=variant_trigger,
        capture=TRIGGERS.capture if INLINE else None,
    message:
        "Generating {wildcards.variant}/{wildcards.sample}"
    shell:
        "{ASK_POOL} generate {wildcards.variant} {wildcards.sample} 2> {log}"
