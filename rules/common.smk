# Names that the rules share: the validated experiments, the layout of the results, and small lookups.

import inspect
import os
import re
import sys
import time
from dataclasses import fields
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import strip_wildcard_constraints
from snakemake.logging import logger

# The library of this Snakefile: a test compares it with the version of the package.
VERSION = "0.2.0"

# The library lies beside a local Snakefile; one from elsewhere, as with github(…), needs it installed.
if isinstance(workflow.current_basedir, os.PathLike):
    root = str(Path(workflow.current_basedir).parent)
    sys.path[:0] = [root] * (root not in sys.path)
try:
    import emoprobe

    installed = emoprobe.__version__
except ModuleNotFoundError:
    installed = "not installed"
if installed != VERSION:
    raise WorkflowError(
        f"This Snakefile needs emoprobe {VERSION}, and the package in this environment is {installed}. "
        f"Install the version of the Snakefile ('pip install emoprobe[workflow]=={VERSION}'), or use its own Snakefile."
    )

from emoprobe.workflow import outcome, process, triggers

# Jobs are run from the code that the library comes with; transforms may also lie in the working directory.
CODE = process.code_folder()
for folder in (str(CODE), os.getcwd()):
    if folder not in sys.path:
        sys.path.append(folder)

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import study_of
from emoprobe.config.reading import merged, read_config_values, typed, with_includes
from emoprobe.report.figures import FIGURES, figures_of
from emoprobe.results.catalogue import tables_of
from emoprobe.results.layout import (
    ACTIVATION_FILES,
    AUTOENCODER_FILES,
    MODELS,
    OUTCOMES_FILE,
    RESULTS,
    SCORES,
    TRAJECTORY_FILES,
    Layout,
)
from emoprobe.steering.grid import EDIT
from emoprobe.workflow.api_costs import cost_lines
from emoprobe.workflow.checks import check_study
from emoprobe.workflow.drawing import SampleRequest
from emoprobe.workflow.data_checks import repeated_questions, with_own_ids
from emoprobe.workflow.gpu_checks import continued, placement_lines
from emoprobe.workflow.inputs import Inputs
from emoprobe.workflow.remembered import CHECKS
from emoprobe.workflow.targets import (
    StudyTargets,
    Targets,
    UnknownTargetError,
    budget,
    directory_targets,
    requests_in_flight,
    turns,
    warnings,
)
from server.deploy.deployment import follow
from server.pool.address import pool_status
from server.pool.protocol import KINDS, Access, Caller, JobRequest
from server.pool.run import address_path

# A prefix that another workflow gives to the results of this one moves outputs, and nothing else by itself.
ROOT = Path(workflow.modifier.path_modifier.modify(str(RESULTS)))

# The config of a module is given by the workflow that uses it, whose own files and options say nothing about it.
IN_MODULE = workflow.modifier.namespace is not None
CONFIG_FILES = [] if IN_MODULE else [Path(path) for path in workflow.configfiles]

try:
    beside = process.include_folder(config, workflow.configfiles)
    values = with_includes(config, beside) if IN_MODULE else {}
    for path in CONFIG_FILES:
        values = merged(values, read_config_values(path))
    if not IN_MODULE:
        given = typed(dict(workflow.config_settings.config))
        values = merged(values, with_includes(given, Path()))
    STUDY = study_of(values, folder=CONFIG_FILES[-1].parent if CONFIG_FILES else Path())
    STUDY = with_own_ids(continued(follow(STUDY), ROOT))
    process.check_text(STUDY, Path.cwd(), ROOT.absolute(), CODE)
    check_study(STUDY, cache=CHECKS)
except ConfigError as error:
    # Not a WorkflowError: that would name the line of this file, which is not where the mistake is.
    sys.exit("\n".join(["The configuration cannot be used:", *error.lines]))

STARTED = time.time()

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
        Path(emoprobe.__file__),
        lambda line: workflow.is_main_process and logger.warning(line),
    )
    for name, targets in EXPERIMENTS.items()
}

IN_CONDA = workflow.deployment_settings.deployment_method
ENVIRONMENT = f"../envs/{process.hardware(STUDY.configs.values())}.yaml"
PYTHON = "python" if IN_CONDA else sys.executable
PLAN = process.plan_folder(STUDY, CHECKS)
ACCESS = Access(
    address_path(STUDY.configs, CODE),
    Caller(str(PLAN), str(ROOT), os.getcwd(), os.getpid()),
    PYTHON,
    CODE,
    turns(STUDY),
    requests_in_flight(STUDY),
)
if workflow.is_main_process:
    if not workflow.output_settings.dryrun:
        process.write_plan(STUDY, PLAN)
    for line in [
        budget(STUDY, EXPERIMENTS),
        *cost_lines(STUDY, EXPERIMENTS),
        *placement_lines(STUDY, CHECKS),
        *warnings(STUDY, EXPERIMENTS),
        *repeated_questions(STUDY, CHECKS),
    ]:
        logger.info(line)


def one_of(names):
    """A regular expression for some names; one that nothing matches where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


# The ids of a data set may be any name that does not end like a draw.
SAMPLE = (
    "[A-Za-z0-9_-]+_(?:(?!-d[0-9]+(?:[/.]|$))[A-Za-z0-9_-])+"
    if any(config.dataset.id is not None for config in STUDY.configs.values())
    else "[A-Za-z0-9_-]+_[0-9]+"
)


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),
    study=one_of([STUDY.name] if STUDY.name else []),
    # What the configuration does not contain is refused by `known`, which says what it contains.
    variant="[A-Za-z0-9_-]+",
    judge="[a-z][a-z0-9_]*",
    sample=SAMPLE,
    draw="(?:-d[0-9]+)?",
    condition=f"none|[A-Za-z0-9_-]+/{EDIT}",


def experiments(test):
    """The experiments whose config passes a test, as a regular expression."""
    return one_of([name for name, config in STUDY.configs.items() if test(config)])


def with_signature(function):
    """A function whose signature Snakemake need not work out anew for each of thousands of jobs."""
    function.__signature__ = inspect.signature(function)
    return function


def files_of(method, *arguments):
    """An input function: some files of the experiment of a job."""
    return lambda wildcards: getattr(EXPERIMENTS[wildcards.experiment], method)(
        *arguments
    )


def require(wildcards, kind, *name):
    """Refuse a target that the config does not contain, and name what it contains."""
    try:
        EXPERIMENTS[wildcards.experiment].require(kind, *name)
    except UnknownTargetError as error:
        raise WorkflowError(str(error)) from None


def name_of(wildcards, *fields):
    """Some wildcards, the draw as part of the sample."""
    names = [wildcards[field] for field in fields]
    if "sample" in fields:
        names[fields.index("sample")] += wildcards.get("draw", "")
    return names


def require_target(wildcards, kind):
    """Refuse a target of some kind by the wildcards that name it."""
    require(wildcards, kind, *name_of(wildcards, *WILDCARDS.get(kind, ())))


def known(kind, *inputs):
    """An input function: some files, for a target that the config contains.

    Args:
        kind: one of `emoprobe.workflow.targets.KINDS`, or the name of a rule that only some experiments need.
        inputs: patterns of files.
    """
    patterns = [str(path) for path in inputs]

    def checked(wildcards):
        require_target(wildcards, kind)
        return patterns

    return with_signature(checked)


# Kind of target → the wildcards that name one.
WILDCARDS = dict(
    sample=("sample",),
    trajectory=("variant", "sample"),
    outcomes=("variant", "sample"),
    judgement=("judge", "variant", "sample"),
    activations=("variant", "sample"),
    tokens=("variant", "sample"),
    direction=("direction",),
    steered=("condition", "variant", "sample"),
    autoencoder=("autoencoder",),
)


def request(kind):
    """A function for `params`: the request that a job is. As it depends on `input`, it makes nothing again."""
    job = KINDS[kind]
    names = [each.name for each in fields(job)]
    function = with_signature(
        lambda wildcards, input: JobRequest(ACCESS, job(*name_of(wildcards, *names)))
    )
    function.kind = kind  # the executor counts the jobs of each kind
    return function


@with_signature
def sample_request(wildcards, input):
    """The request that draws a sample, see `request`."""
    name = wildcards.experiment
    return SampleRequest(
        (PYTHON, str(CODE / "scripts"), "prepare_sample"),
        str(PLAN / f"{name}.json"),
        str(ROOT / name),
        wildcards.sample,
        ACCESS.turns[name],
    )


def script_command(name):
    """A function for `params`: the command of a script. As it depends on `input`, it makes nothing again."""
    command = process.script_command(PYTHON, CODE, name)
    return lambda wildcards, input: command


def config_file(wildcards, input):
    """The resolved config of the experiment of a job, see `script_command`."""
    return process.quoted(PLAN / f"{wildcards.experiment}.json")


def trigger(name):
    """A function for `params`: a digest of the experiment of a job."""
    return with_signature(
        lambda wildcards: getattr(TRIGGERS[wildcards.experiment], name)
    )


@with_signature
def sample_trigger(wildcards):
    """The digest of the data that a sample depends on."""
    return TRIGGERS[wildcards.experiment].sample(wildcards.sample)


@with_signature
def variant_trigger(wildcards):
    """The digests that a trajectory depends on."""
    return TRIGGERS[wildcards.experiment].trajectory(
        wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


def planned_from(wildcards):
    """What an analysis plan waits for."""
    return INPUTS[wildcards.experiment].preregistration()


@with_signature
def answered_from(wildcards):
    """What an answer waits for."""
    require_target(wildcards, "trajectory")
    return INPUTS[wildcards.experiment].answer(
        wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


@with_signature
def measured_from(wildcards):
    """What the outcomes of an answer wait for."""
    require_target(wildcards, "outcomes")
    return INPUTS[wildcards.experiment].outcomes(
        wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


@with_signature
def judged_from(wildcards):
    """What a judgement waits for."""
    require_target(wildcards, "judgement")
    return INPUTS[wildcards.experiment].judged(
        wildcards.judge, wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


@with_signature
def judge_trigger(wildcards):
    """The digest of what a judge is asked."""
    return TRIGGERS[wildcards.experiment].judges.get(wildcards.judge)


@with_signature
def judge_model_command(wildcards, input):
    """The command that prepares the model of a judge, see `script_command`."""
    command = process.script_command(PYTHON, CODE, "prepare_model")
    return f"{command} --judge {wildcards.judge}"


@with_signature
def judge_model_trigger(wildcards):
    """The digest of the model of a judge that the run serves."""
    return TRIGGERS[wildcards.experiment].judge_models.get(wildcards.judge)


@with_signature
def captured_from(wildcards):
    """What the activations of an answer wait for."""
    require_target(wildcards, "activations")
    return _replayed(wildcards, "activations", "capture")


@with_signature
def tokens_from(wildcards):
    """What the activations at every token of an answer wait for."""
    require_target(wildcards, "tokens")
    return _replayed(wildcards, "tokens", "tokens")


def _replayed(wildcards, folder, captured):
    variant, name = wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    place = getattr(EXPERIMENTS[wildcards.experiment].found, folder)(variant, name)
    return INPUTS[wildcards.experiment].replayed(
        variant,
        name,
        [place / file for file in ACTIVATION_FILES],
        getattr(TRIGGERS[wildcards.experiment], captured),
    )


@with_signature
def steered_from(wildcards):
    """What a steered answer waits for."""
    require_target(wildcards, "steered")
    return INPUTS[wildcards.experiment].steered(
        wildcards.condition, wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


@with_signature
def scored_from(wildcards):
    """What the scores of a steered answer wait for."""
    require_target(wildcards, "steered")
    return INPUTS[wildcards.experiment].scored(
        wildcards.condition, wildcards.variant, f"{wildcards.sample}{wildcards.draw}"
    )


def fitted_on(wildcards):
    """The activations that a direction is fitted on."""
    require(wildcards, "direction", wildcards.direction)
    return EXPERIMENTS[wildcards.experiment].steering.fitted_on(wildcards.direction)


def direction_trigger(wildcards):
    """The digest that a direction depends on besides activations."""
    return EXPERIMENTS[wildcards.experiment].steering.made_from[wildcards.direction]


@with_signature
def steered_trigger(wildcards):
    """The digests that the steered trajectories of one variant depend on besides their direction."""
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


def read_experiment_folder(wildcards, input):
    """The same, where it must make nothing again, see `script_command`."""
    return experiment_folder(wildcards)


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


def report_table(name):
    """A table of an experiment, as an entry of Snakemake's own report."""
    return report(
        FILES.table(name),
        category="Tables",
        labels=dict(table=name, experiment="{experiment}"),
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
    return pool_status(ACCESS.address)


def of_all(method, *arguments):
    """Files of every experiment."""
    return [
        path
        for targets in EXPERIMENTS.values()
        for path in getattr(targets, method)(*arguments)
    ]


def everything():
    """Every file of every experiment, and what is computed from all of them."""
    return [*of_all("everything"), *ACROSS.everything()]


try:
    DIRECTORIES = {} if IN_MODULE else directory_targets(EXPERIMENTS, sys.argv[1:])
except UnknownTargetError as error:
    sys.exit(str(error))
