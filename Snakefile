# How the tone of a prompt changes what a language model does and what goes on inside it.
# README.md says how to use it, config/README.md what can be configured.

from snakemake.utils import min_version

min_version("9.27")


# As a module of another workflow it takes the config that it is given there.
if workflow.modifier.namespace is None and not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/targets.smk"
include: "rules/prepare.smk"
include: "rules/generate.smk"
include: "rules/capture.smk"
include: "rules/store.smk"
include: "rules/probe.smk"
include: "rules/steer.smk"
include: "rules/analyze.smk"
include: "rules/features.smk"
include: "rules/study.smk"


rule all:
    """Everything that the configuration describes."""
    default_target: True
    input:
        everything(),
    localrule: True


onstart:
    outcome.date_future_files_to_now(STUDY, ROOT)
    # Here, as it brings rich, which a plan does without.
    from emoprobe.workflow.live_servers import show_servers
    from emoprobe.workflow.lost_jobs import watch_jobs

    show_servers(workflow.logger_manager.plugin_handlers, pool_now)
    watch_jobs(workflow)


onsuccess:
    logger.info(outcome.summaries(STUDY, ROOT, files_of_run()))


onerror:
    logger.error(outcome.failures(STUDY, ROOT, job_logs(), STARTED))
