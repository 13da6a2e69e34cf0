# Names that the rules share: the validated config, the layout of the results, and small lookups.

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Transforms may lie where the workflow was started; the folder of the Snakefile is on the path already.
sys.path.append(os.getcwd())

from emoprobe.tasks import samples
from emoprobe.workflow import triggers
from emoprobe.config.errors import ConfigError
from emoprobe.config.files import (
    merged,
    parse_config,
    read_config_values,
    resolved_path,
    typed,
    with_includes,
    write_resolved,
)
from emoprobe.results.dates import end_future, files_below
from emoprobe.workflow.failures import failure_text
from emoprobe.report.figures import FIGURES, figures_of
from emoprobe.results.catalogue import tables_of
from emoprobe.results.layout import ACTIVATION_FILES, MODELS, TRAJECTORY_FILES, Layout
from server.pool.run import job_environment

try:
    values = {}
    for path in workflow.configfiles:
        values = merged(values, read_config_values(path))
    given = typed(dict(workflow.config_settings.config))
    CONFIG = parse_config(merged(values, with_includes(given, Path.cwd())))
except ConfigError as error:
    raise WorkflowError("\n".join(["The configuration cannot be used:", *error.lines]))

STARTED = time.time()
FILES = Layout.of(CONFIG.experiment.name)
SAMPLES = samples.sample_ids(CONFIG.dataset)
TRIGGERS = triggers.Triggers.of(CONFIG)

# The backend nnsight captures in the request that generates; with vllm, each trajectory is replayed.
CAPTURE = CONFIG.capture.enabled
INLINE = CAPTURE and CONFIG.generation.backend == "nnsight"

# Probes need positions that all trajectories have.
PROBES = CAPTURE and CONFIG.capture.positions != "all"

RUN_CONFIG = resolved_path(CONFIG, Path(".snakemake/emoprobe"))
# Shell commands take these from the environment: in `params`, or in the command itself, a new process number or another
# folder would make everything again.
CODE = Path(workflow.basedir)
IN_CONDA = workflow.deployment_settings.deployment_method
os.environ.update(
    job_environment(CONFIG, RUN_CONFIG, CODE, "python" if IN_CONDA else sys.executable)
)

# A plan is hundreds of thousands of objects that all stay: collecting garbage less often makes it 15 % faster.
gc.set_threshold(200_000, 20, 100)


wildcard_constraints:
    variant="[A-Za-z0-9_-]+",
    sample="[A-Za-z0-9_-]+",


def pairs(path):
    """A path with {variant} and {sample} for every pair of the experiment."""
    return [
        path.format(variant=variant, sample=sample)
        for variant in CONFIG.variants
        for sample in SAMPLES
    ]


def trajectories(*names):
    """Files of the trajectory of every pair; without names: those that vouch for the others."""
    return [
        path
        for name in names or ["trajectory.jsonl"]
        for path in pairs(str(FILES.pair("{variant}", "{sample}") / name))
    ]


def activations(*names):
    """Files of the activations of every pair."""
    return [
        path
        for name in names
        for path in pairs(str(FILES.activations("{variant}", "{sample}") / name))
    ]


def analysis_rules():
    """The rules that make the experiment's tables."""
    return [
        "tabulate_trajectories",
        "analyze_behaviour",
        *(["probe_activations"] if PROBES else []),
    ]


def tables():
    """Every table of the experiment."""
    return [FILES.table(name) for rule in analysis_rules() for name in tables_of(rule)]


def figures():
    """The names of the experiment's figures."""
    return figures_of(set(analysis_rules()))


def variant_trigger(wildcards):
    """What the trajectories of one variant depend on."""
    return TRIGGERS.variants[wildcards.variant]


def experiment_files():
    """Everything that a finished experiment has.

    Every file is named: Snakemake does not make a lost one again for the sake of tables that are up to date.
    """
    files = [
        FILES.resolved_yaml,
        FILES.resolved_json,
        FILES.metadata,
        FILES.report,
        FILES.report_html,
        FILES.model,
        FILES.verified,
    ]
    files += [
        *tables(),
        *(FILES.figure(name) for name in figures()),
        *([FILES.directions()] if PROBES else []),
    ]
    files += [FILES.sample(sample) for sample in SAMPLES]
    files += trajectories(*TRAJECTORY_FILES)
    return files + (
        [FILES.manifest, *activations(*ACTIVATION_FILES)] if CAPTURE else []
    )


def heed_sigterm():
    """Run the handler of SIGTERM of Snakemake 9.27 in a thread.

    It takes the scheduler's lock, which the code that it interrupts may hold: then a run would wait for itself, for ever.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        signal.signal(
            signal.SIGTERM,
            lambda *arguments: threading.Thread(target=handler, args=arguments).start(),
        )


def print_summary():
    """Show the headline numbers at the end of a run."""
    # Here, as it brings pandas, which a plan does without.
    from emoprobe.report.summary import summary_text

    if FILES.report.exists():
        print(summary_text(FILES.report), file=sys.stderr)


def print_failures():
    """List what failed by its reason: Snakemake itself tells only which jobs did."""
    logs = []
    for job in workflow.rules:
        if job.log and not job.has_wildcards():
            log = Path(job.log[0])
            begun = log.exists() and log.stat().st_mtime >= STARTED
            if begun and not all(
                Path(path).exists() and Path(path).stat().st_mtime >= STARTED
                for path in job.output
            ):
                logs.append(log)
    print(failure_text(FILES, logs, STARTED), file=sys.stderr)
