# How the tone of a prompt changes what a language model does and what goes on inside it.
# README.md says how to use it, config/README.md what can be configured.

from snakemake.utils import min_version

min_version("9.27")


if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/prepare.smk"
include: "rules/generate.smk"
include: "rules/capture.smk"
include: "rules/probe.smk"
include: "rules/analyze.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        experiment_files(),


onstart:
    heed_sigterm()
    write_resolved(CONFIG, RUN_CONFIG.parent)
    end_future(files_below(FILES.root))


onsuccess:
    print_summary()


onerror:
    print_failures()
