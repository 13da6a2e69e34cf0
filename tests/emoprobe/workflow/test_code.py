"""Digests of code: what they cover, what they leave out, and what is no change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emoprobe.workflow import code, triggers
from tests.workspace import ROOT

FILES = {
    "__init__.py": "",
    "tasks/__init__.py": "",
    "tasks/grading.py": "from emoprobe.tasks import numbers\nfrom emoprobe.results import atomic\n",
    "tasks/numbers.py": "ONE = 1\n",
    "tasks/other.py": "TWO = 2\n",
    "models/__init__.py": "from .depth import DEPTH\n",
    "models/depth.py": "DEPTH = 3\n",
    "models/typed.py": "MORE = 5\n",
    "results/__init__.py": "",
    "results/atomic.py": "THREE = 3\n",
    "results/shapes.py": "SHAPE = 4\n",
    "analysis/__init__.py": "",
    "analysis/table.py": "from emoprobe.tasks.grading import (\n    grade,  # first\n)\nimport emoprobe.results.atomic\n",
    "analysis/late.py": "def f():\n    import emoprobe.tasks.numbers as n, emoprobe.results.shapes\n    return n\n",
    "analysis/beside.py": "from . import table\nfrom ..models import DEPTH\n",
    "analysis/typed.py": "if TYPE_CHECKING:\n    from emoprobe.models import typed\nelse:\n    from emoprobe import results\n",
    "analysis/probes/__init__.py": "",
    "analysis/probes/cell.py": "from emoprobe.tasks.other import TWO\n",
    "report/page.html.j2": "<p>\n",
    "config/servers.py": "class Servers:\n    changes_results: ClassVar[bool] = False\n    count: int = 1\n",
    "config/both.py": "class Free:\n    changes_results: ClassVar[bool] = False\nclass Bound:\n    count: int = 1\n",
    "config/whole.py": "from emoprobe.config import both, servers\n",
}
WRITTEN = '''"""What it is."""
import math


# A comment.
class Ruler:
    """A ruler."""

    length = 3
    """How long it is."""

    def twice(self, by: int = 2) -> float:
        """Twice its length."""
        return math.sqrt(4) * self.length if by else 0.0
'''


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library of the same shape."""
    root = tmp_path / "emoprobe"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(code, "LIBRARY", root)
    return root


def digest(module: str, memory: Path | None = None) -> str:
    code._sources.cache_clear()
    code._imported_files.cache_clear()
    return code.code_digest(module, memory=memory)


@pytest.mark.parametrize(
    ("module", "changed", "covered"),
    [
        ("emoprobe.analysis.table", "analysis/table.py", True),
        ("emoprobe.analysis.table", "tasks/grading.py", True),
        ("emoprobe.analysis.table", "tasks/numbers.py", True),
        ("emoprobe.analysis.table", "tasks/__init__.py", True),
        ("emoprobe.analysis.table", "tasks/other.py", False),
        ("emoprobe.analysis.table", "results/atomic.py", False),
        ("emoprobe.analysis.late", "tasks/numbers.py", True),
        ("emoprobe.analysis.late", "results/shapes.py", True),
        ("emoprobe.analysis.late", "results/__init__.py", True),
        ("emoprobe.analysis.beside", "analysis/table.py", True),
        ("emoprobe.analysis.beside", "tasks/numbers.py", True),
        ("emoprobe.analysis.beside", "models/depth.py", True),
        ("emoprobe.analysis.beside", "models/typed.py", False),
        ("emoprobe.analysis.typed", "models/typed.py", False),
        ("emoprobe.analysis.typed", "results/__init__.py", True),
        ("emoprobe.analysis.probes", "analysis/probes/cell.py", True),
        ("emoprobe.analysis.probes", "tasks/other.py", True),
        ("emoprobe.analysis.probes", "tasks/numbers.py", False),
        ("emoprobe.report", "report/page.html.j2", True),
        ("emoprobe.config.whole", "config/servers.py", False),
        ("emoprobe.config.whole", "config/both.py", True),
    ],
)
def test_what_a_digest_covers(library: Path, module: str, changed: str, covered: bool) -> None:
    before = digest(module)
    (library / changed).write_text((library / changed).read_text() + "\nMORE = 4\n")
    assert (digest(module) != before) is covered


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A ruler.", "A ruler of wood."),
        ("What it is.", "Rulers."),
        ("Twice its length.", "Return twice the length."),
        ('        """Twice its length."""\n', ""),
        ("How long it is.", "In inches."),
        ("# A comment.", "# Another.\n\n"),
        ("import math\n", "import math  # noqa\n\n\n"),
        ("(self, by: int = 2)", "(\n        self,\n        by: int = 2,\n    )"),
        ("math.sqrt(4) * self.length", "(math.sqrt(4)) * (self.length)"),
    ],
)
def test_words_and_formatting_change_no_digest(library: Path, old: str, new: str) -> None:
    place = library / "tasks/other.py"
    place.write_text(WRITTEN)
    before = digest("emoprobe.tasks.other")
    assert old in WRITTEN
    place.write_text(WRITTEN.replace(old, new))
    assert digest("emoprobe.tasks.other") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("length = 3", "length = 4"),
        ("length = 3", 'length = "3"'),
        ("sqrt(4)", "cbrt(4)"),
        ("* self", "/ self"),
        ("if by else 0.0", "if not by else 0.0"),
        ("if by else 0.0", "if by else -0.0"),
        ("int = 2", "int = 0"),
        ("        return", "        yield"),
        ("import math", "import cmath as math"),
    ],
)
def test_a_change_of_what_is_computed_changes_the_digest(library: Path, old: str, new: str) -> None:
    place = library / "tasks/other.py"
    place.write_text(WRITTEN)
    before = digest("emoprobe.tasks.other")
    assert old in WRITTEN
    place.write_text(WRITTEN.replace(old, new))
    assert digest("emoprobe.tasks.other") != before


def test_what_is_kept_is_used_and_never_stale(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "memory"
    before = digest("emoprobe.analysis.table", memory)
    assert digest("emoprobe.analysis.table") == before
    with monkeypatch.context() as patched:
        patched.setattr(code, "_read", lambda *_: pytest.fail("it was read again"))
        assert digest("emoprobe.analysis.table", memory) == before
    (library / "tasks/numbers.py").write_text("ONE = 2\n")
    changed = digest("emoprobe.analysis.table", memory)
    assert changed != before
    assert changed == digest("emoprobe.analysis.table")
    (memory / code.KEPT).write_text("{")
    assert digest("emoprobe.analysis.table", memory) == changed


def test_an_unknown_module_is_an_error(library: Path) -> None:
    with pytest.raises(LookupError, match=r"emoprobe\.tasks\.missing"):
        digest("emoprobe.tasks.missing")


def test_every_rule_that_computes_has_its_code() -> None:
    found = {rule: triggers.code(rule) for rule in triggers.CODE}
    assert len(set(found.values())) == len(found)


def test_what_counts_for_nothing_is_there() -> None:
    for name in code.EXCLUDED:
        assert (ROOT / name.replace(".", "/")).is_dir() or (ROOT / f"{name.replace('.', '/')}.py").is_file()


def test_every_file_that_holds_no_code_counts_somewhere() -> None:
    covered = set().union(*(code.closure(*modules) for modules in triggers.CODE.values()))
    files = {path for path in code._sources(code.LIBRARY, None) if not path.endswith(".py")}
    # The resolved config holds the text of a rubric.
    assert files - covered == {"emoprobe/py.typed", "emoprobe/config/science/rubrics.yaml"}


def test_digests_cover_all_that_is_imported() -> None:
    roots = {module for modules in triggers.CODE.values() for module in modules}
    modules = [module for module in sorted(roots) if (ROOT / f"{module.replace('.', '/')}.py").exists()]
    show = "import sys; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('emoprobe.')), sep='\\n')"
    imports = "\n".join(f"import {module}" for module in modules)
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {Path(line).relative_to(ROOT).as_posix() for line in done.stdout.split() if line != "None"}
    assert len(imported) > len(modules)
    left_out = imported - code.closure(*roots)
    places = tuple(f"{name.replace('.', '/')}{end}" for name in code.EXCLUDED for end in ("/", ".py"))
    silent = {path for path, source in code._sources(code.LIBRARY, None).items() if not source.digest}
    assert silent == {f"emoprobe/config/execution/{name}.py" for name in ("deploy", "slurm", "storage", "workers")}
    assert not [path for path in left_out - silent if not path.startswith(places)]
