# Names that the rules share: the validated plan of experiments, the layout of the results, and small lookups.

import os
import re
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import strip_wildcard_constraints
from snakemake.scheduling.job_scheduler import JobScheduler

# The library lies beside the Snakefile; transforms may also lie where the workflow was started.
CODE = Path(workflow.current_basedir).parent
sys.path[:0] = [str(CODE)] * (str(CODE) not in sys.path)
sys.path.append(os.getcwd())

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import study_of
from emoprobe.config.reading import merged, read_config_values, typed, with_includes
from emoprobe.report.figures import FIGURES, figures_of
from emoprobe.results.catalogue import tables_of
from emoprobe.results.layout import (
    ACTIVATION_FILES,
    AUTOENCODER_FILES,
    MODELS,
    RESULTS,
    SCORES,
    TRAJECTORY_FILES,
    Layout,
)
from emoprobe.steering.plan import EDIT
from emoprobe.workflow import outcome, process, triggers
from emoprobe.workflow.checks import check_study
from emoprobe.workflow.inputs import Inputs
from emoprobe.workflow.remembered import CHECKS
from emoprobe.workflow.targets import StudyTargets, Targets, budget, turns, warnings
from server.deploy.deployment import follow
from server.pool.address import pool_status
from server.pool.run import job_environment
from snakemake_scheduler_plugin_emoprobe import Scheduler
from snakemake_scheduler_plugin_emoprobe.lighter import lighten

# A prefix that another workflow gives to the results of this one moves outputs, and nothing else by itself.
ROOT = Path(workflow.modifier.path_modifier.modify(str(RESULTS)))

# The config of a module is given by the workflow that uses it, whose own files and options say nothing about it.
IN_MODULE = workflow.modifier.namespace is not None
CONFIG_FILES = [] if IN_MODULE else [Path(path) for path in workflow.configfiles]

try:
    values = with_includes(config, Path()) if IN_MODULE else {}
    for path in CONFIG_FILES:
        values = merged(values, read_config_values(path))
    if not IN_MODULE:
        given = typed(dict(workflow.config_settings.config))
        values = merged(values, with_includes(given, Path()))
    STUDY = study_of(values, folder=CONFIG_FILES[-1].parent if CONFIG_FILES else Path())
    STUDY = follow(STUDY)
    process.check_text(STUDY, Path.cwd(), ROOT.absolute(), CODE)
    check_study(STUDY, cache=CHECKS)
except ConfigError as error:
    # Not a WorkflowError: that would name the line of this file, which is not where the mistake is.
    sys.exit("\n".join(["The configuration cannot be used:", *error.lines]))

process.collect_garbage_less()
lighten()
JobScheduler.exit_gracefully = process.in_thread(JobScheduler.exit_gracefully)

STARTED = time.time()

Scheduler.turns = turns(STUDY)

# Rules name the files of one experiment by wildcard.
FILES = Layout(RESULTS / "{experiment}")
STUDY_FILES = Layout(RESULTS / "{study}")
EXPERIMENTS = {
    name: Targets(config, Layout.of(name), Layout.of(name, ROOT), CHECKS)
    for name, config in STUDY.configs.items()
}
TRIGGERS = {name: triggers.Triggers.of(each) for name, each in STUDY.configs.items()}
ACROSS = StudyTargets(STUDY)
INPUTS = {
    name: Inputs(
        targets,
        TRIGGERS[name],
        lambda: workflow.persistence,
        CODE / "Snakefile",
        lambda line: workflow.is_main_process and print(line, file=sys.stderr),
    )
    for name, targets in EXPERIMENTS.items()
}

IN_CONDA = workflow.deployment_settings.deployment_method
ENVIRONMENT = f"../envs/{process.hardware()}.yaml"
PLAN = process.plan_folder(STUDY, CHECKS)
# Shell commands take these from the environment: in `params`, or in the command itself, a new process number or another
# folder would make everything again.
ENVIRON = job_environment(
    PLAN,
    ROOT,
    CODE,
    "python" if IN_CONDA else sys.executable,
    STUDY.configs,
    os.getpid(),
)
os.environ.update(ENVIRON)
if workflow.is_main_process:
    process.write_plan(STUDY, PLAN)
    print(
        budget(STUDY, EXPERIMENTS),
        *warnings(STUDY, EXPERIMENTS),
        sep="\n",
        file=sys.stderr,
    )


def one_of(names):
    """A regular expression for some names; one that nothing matches where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),
    study=one_of([STUDY.name] if STUDY.name else []),
    variant=one_of(
        dict.fromkeys(
            name for config in STUDY.configs.values() for name in config.variants
        )
    ),
    sample="[A-Za-z0-9_-]+_[0-9]+",
    draw="(?:-d[0-9]+)?",
    condition=f"none|[A-Za-z0-9_-]+/{EDIT}",


def experiments(test):
    """The experiments whose config passes a test, as a regular expression."""
    return one_of([name for name, config in STUDY.configs.items() if test(config)])


def files_of(method, *arguments):
    """An input function: some files of the experiment of a job."""
    return lambda wildcards: getattr(EXPERIMENTS[wildcards.experiment], method)(
        *arguments
    )


def trigger(name):
    """A function for `params`: a digest of the experiment of a job."""
    return lambda wildcards: getattr(TRIGGERS[wildcards.experiment], name)


def variant_trigger(wildcards):
    """What the trajectories of one variant depend on."""
    known = TRIGGERS[wildcards.experiment].trajectories
    if wildcards.variant not in known:
        raise WorkflowError(
            f"{wildcards.experiment} has no variant {wildcards.variant}; it has {', '.join(known)}"
        )
    return known[wildcards.variant]


def planned_from(wildcards):
    """What an analysis plan waits for."""
    return INPUTS[wildcards.experiment].preregistration()


def answered_from(wildcards):
    """What an answer waits for."""
    variant_trigger(wildcards)
    return INPUTS[wildcards.experiment].answer(
        wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


def captured_from(wildcards):
    """What the activations of an answer wait for."""
    return _replayed(wildcards, "activations", "capture")


def tokens_from(wildcards):
    """What the activations at every token of an answer wait for."""
    return _replayed(wildcards, "tokens", "tokens")


def _replayed(wildcards, folder, captured):
    variant, name = wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    place = getattr(EXPERIMENTS[wildcards.experiment].found, folder)(variant, name)
    variant_trigger(wildcards)
    return INPUTS[wildcards.experiment].replayed(
        variant, name, place, getattr(TRIGGERS[wildcards.experiment], captured)
    )


def steered_from(wildcards):
    """What a steered answer waits for."""
    variant_trigger(wildcards)
    return INPUTS[wildcards.experiment].steered(
        wildcards.condition, wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


def scored_from(wildcards):
    """What the scores of a steered answer wait for."""
    variant_trigger(wildcards)
    return INPUTS[wildcards.experiment].scored(
        wildcards.condition, wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


def fitted_on(wildcards):
    """The activations that a direction is fitted on."""
    return EXPERIMENTS[wildcards.experiment].steering.fitted_on(wildcards.direction)


def direction_trigger(wildcards):
    """What a direction depends on besides activations."""
    return EXPERIMENTS[wildcards.experiment].steering.made_from[wildcards.direction]


def steered_trigger(wildcards):
    """What the steered trajectories of one variant depend on besides their direction."""
    return TRIGGERS[wildcards.experiment].steered[wildcards.variant]


def before_push(wildcards):
    """What reads the activations goes first, as a push may delete them here. No push is due because of it."""
    paths = EXPERIMENTS[wildcards.experiment].before_push()
    return [ancient(str(path)) for path in paths]


def storage_of(wildcards):
    """Where the activations of the experiment of a job are copied to."""
    settings = STUDY.configs[wildcards.experiment].storage
    return [settings.url, settings.keep_local]


def experiment_folder(wildcards):
    """The folder of the experiment of a job."""
    return str(ROOT / wildcards.experiment)


def study_folder(wildcards):
    """The folder of the study of a job."""
    return str(ROOT / wildcards.study)


def results_folder(wildcards):
    """The folder in which those of all experiments lie."""
    return str(ROOT)


def report_figure(name):
    """A figure of an experiment, as an entry of Snakemake's own report."""
    return report(
        FILES.figure(name),
        caption=FIGURES[name].caption_file,
        category=FIGURES[name].part,
        labels={"figure": name.replace("_", " "), "experiment": "{experiment}"},
    )


def tables_for(rule):
    """The tables that the figures of one rule are drawn from."""
    return sorted(
        {
            FILES.table(table)
            for name in figures_of(rule)
            for table in FIGURES[name].tables
        }
    )


def job_logs():
    """Log → outputs of every rule, with their wildcards."""
    return {
        strip_wildcard_constraints(rule.log[0]): [
            strip_wildcard_constraints(path) for path in rule.output
        ]
        for rule in workflow.rules
        if rule.log
    }


def files_of_run():
    """Every output of the jobs of this run, among them those that were up to date before."""
    return {Path(path) for job in workflow.dag.jobs for path in job.output}


def pool_now():
    """What the pool says of its servers; None where none answers."""
    return pool_status(Path(ENVIRON["EMOPROBE_POOL"]))


def everything():
    """Every file of every experiment of the plan, and what is computed from all of them."""
    return [
        *(path for targets in EXPERIMENTS.values() for path in targets.everything()),
        *ACROSS.everything(),
    ]
