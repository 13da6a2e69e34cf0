"""Which tests a worker of pytest-xdist does one after the other, and which begin first."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Files that share what a session makes once and what takes long: a SLURM, a finished experiment, servers of models.
TOGETHER = {
    "tests/emoprobe/workflow/test_lost_jobs.py": "slurm",
    "tests/server/pool/test_slurm_jobs.py": "slurm",
    "tests/workflow/test_slurm.py": "slurm",
    "tests/workflow/test_slurm_profile.py": "slurm",
    "tests/workflow/test_damage.py": "finished",
    "tests/workflow/test_failures.py": "finished",
    "tests/workflow/test_interrupted.py": "finished",
    "tests/workflow/test_targets.py": "finished",
    "tests/workflow/test_report.py": "finished",
    "tests/workflow/test_reruns.py": "finished",
    "tests/emoprobe/workflow/test_stages.py": "nnsight",
    "tests/server/capture/test_api.py": "nnsight",
    "tests/server/capture/test_equality.py": "nnsight",
    "tests/server/capture/test_hostile_clients.py": "nnsight",
    "tests/server/capture/test_inspect.py": "nnsight",
    "tests/server/capture/test_steering_requests.py": "nnsight",
    "tests/server/pool/test_fetched.py": "nnsight",
}
# The longest first, so that all workers end together; others follow as they come.
LONGEST = (
    "slurm",
    "tests/workflow/test_faults_of_servers.py",
    "tests/workflow/test_faults_of_captures.py",
    "nnsight",
    "tests/workflow/test_faults.py",
    "tests/workflow/test_vllm.py",
    "tests/server/deploy/test_ssh.py",
    "tests/workflow/test_features.py",
    "tests/emoprobe/stages/test_folder.py",
    "tests/workflow/test_storage.py",
    "finished",
    "tests/workflow/test_steering.py",
    "tests/workflow/test_studies.py",
    "tests/workflow/test_conversations.py",
    "tests/packaging/test_wheel.py",
    "tests/workflow/test_stored.py",
    "tests/workflow/test_module.py",
    "tests/emoprobe/stages/test_missing_fields.py",
    "tests/workflow/test_many_jobs.py",
    "tests/workflow/test_directories.py",
    "tests/emoprobe/workflow/test_checks.py",
    "tests/workflow/test_capture.py",
    "tests/workflow/test_secrets.py",
    "tests/workflow/test_mistakes.py",
    "tests/workflow/test_judges.py",
    "tests/workflow/test_thinking.py",
    "tests/packaging/test_documentation.py",
    "tests/gpu/test_gpu_check.py",
    "tests/emoprobe/graders/test_grading.py",
    "tests/emoprobe/analysis/test_probes.py",
    "tests/emoprobe/analysis/test_calibration.py",
    "tests/emoprobe/analysis/features/test_calibration.py",
)


def group_of(name: str) -> str:
    """The tests that a test shares a worker with: those of its file, or of the files that share with it."""
    path = name.partition("::")[0]
    return TOGETHER.get(path, path)


def sort(items: list[pytest.Item]) -> None:
    """Let the longest groups begin first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(group_of(item.nodeid), len(places)))


class Groups(LoadScopeScheduling):
    """Hands out a group at a time, in the order in which the tests come."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
