# One trajectory a job. The job is a thin client of the pool, which runs the model servers: no rule depends on one.


localrules:
    generate,


rule generate:
    input:
        sample=FILES.sample("{sample}"),
        model=FILES.model,
    output:
        [FILES.pair("{variant}", "{sample}") / name for name in TRAJECTORY_FILES],
        [
            FILES.activations("{variant}", "{sample}") / name
            for name in ACTIVATION_FILES
            if INLINE
        ],
    log:
        FILES.log("generate", "{variant}", "{sample}"),
    priority: 10
    # The pool itself gives a failed request to the next server; what it gives up is not worth another try.
    retries: 0
    conda:
        "../envs/cpu.yaml"
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
        'source "$EMOPROBE_CLIENT" generate {wildcards.variant} {wildcards.sample} 2> {log}'
