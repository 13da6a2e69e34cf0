"""Digests of the library's code, so that a change to what it computes makes that again."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from emoprobe.results import atomic
from emoprobe.workflow.remembered import CHECKS

LIBRARY = Path(__file__).parents[1]
# Modules and packages that cannot change a number or a sentence. Neither can those of sections with `changes_results =
# False`, nor `emoprobe/__init__.py`, which has the version and imports public names for others.
EXCLUDED = {
    "emoprobe.results.atomic": "writes the bytes that it is given",
    "emoprobe.results.dates": "sets the dates of files and reads none of them",
    "emoprobe.workflow": "decides which jobs there are; their files are the inputs of the rules",
}
# What a source file comes to, kept by the hash of its content: parsing all of them takes longer than a plan should.
KEPT = "code.json"
# Raised where `_canonical`, `_imports` or `_changes_no_result` change.
FORMAT = f"2 {sys.version_info.major}.{sys.version_info.minor}"


class ModuleDigest(NamedTuple):
    """The digest of one file, empty where it cannot change a result, and the modules that it may import."""

    digest: str
    imports: list[str]


_SOURCES = TypeAdapter(dict[str, ModuleDigest])


def code_digest(*modules: str, memory: Path | None = CHECKS) -> str:
    """Return twelve hexadecimal digits that stand for some modules and all of the library that they import.

    Docstrings, comments, formatting and the place of a line do not count. Files that hold no Python count by their
    content.

    Args:
        modules: dotted names of modules, packages or folders of the library; a package or folder stands for everything
            in it.
        memory: folder in which digests of single files are kept; None: none are.

    Raises:
        LookupError: there is no such module.
    """
    sources = _sources(LIBRARY, memory)
    lines = [f"{path}\0{sources[path].digest}" for path in sorted(closure(*modules, memory=memory))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def closure(*modules: str, memory: Path | None = CHECKS) -> set[str]:
    """Return the files that a digest covers, relative to the folder of the library.

    Raises:
        LookupError: there is no such module.
    """
    sources = _sources(LIBRARY, memory)
    seen: set[str] = set()
    waiting = [path for module in modules for path in _roots(module, sources)]
    waiting += [path for module in modules for around in _around(module) for path in _files_of(around, sources)]
    imported = _imported_files(LIBRARY, memory)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += imported[path]
    return seen


@cache
def _imported_files(library: Path, memory: Path | None) -> dict[str, list[str]]:
    """The files that each file may import, for the digests of all rules: a plan takes some thirty."""
    sources = _sources(library, memory)
    return {
        path: [found for name in source.imports for found in _files_of(name, sources)]
        for path, source in sources.items()
    }


def _roots(module: str, sources: Iterable[str]) -> list[str]:
    place = module.replace(".", "/")
    found = [path for path in sources if path == f"{place}.py" or path.startswith(f"{place}/")]
    if not found:
        raise LookupError(f"there is no module {module}")
    return found


def _files_of(name: str, sources: dict[str, ModuleDigest]) -> Iterator[str]:
    """The file of a module or package, if it is one of the library that counts."""
    if name != "emoprobe" and not any(f"{name}.".startswith(f"{excluded}.") for excluded in EXCLUDED):
        place = name.replace(".", "/")
        paths = (f"{place}.py", f"{place}/__init__.py")
        yield from (path for path in paths if path in sources and sources[path].digest)


@cache
def _sources(library: Path, memory: Path | None) -> dict[str, ModuleDigest]:
    """Every file of the library by its path beside the library, such as `emoprobe/graders/grading.py`."""
    kept: dict[str, ModuleDigest] = {}
    if memory is not None:
        with contextlib.suppress(OSError, ValidationError):
            kept = _SOURCES.validate_json((memory / KEPT).read_bytes())
    keys: dict[str, str] = {}
    used: dict[str, ModuleDigest] = {}
    for path in sorted(library.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts or path.name.startswith("."):
            continue
        name = path.relative_to(library.parent).as_posix()
        content = path.read_bytes()
        key = hashlib.sha256(f"{FORMAT}\0{name}\0".encode() + content).hexdigest()[:32]
        keys[name] = key
        used[key] = kept.get(key) or _read(name, content)
    if memory is not None and used.keys() != kept.keys():
        with contextlib.suppress(OSError):  # a plan may be made where nothing can be written
            atomic.write_text(memory / KEPT, _SOURCES.dump_json(used).decode())
    return {name: used[key] for name, key in keys.items()}


def _read(name: str, content: bytes) -> ModuleDigest:
    if not name.endswith(".py"):
        return ModuleDigest(hashlib.sha256(content).hexdigest(), [])
    tree = ast.parse(content)
    if _changes_no_result(tree):
        return ModuleDigest("", [])
    package = name.rpartition("/")[0].replace("/", ".")
    imports = sorted({found for found in _imports(tree, package) if found.startswith("emoprobe.")})
    return ModuleDigest(hashlib.sha256(repr(_canonical(tree)).encode()).hexdigest(), imports)


def _changes_no_result(tree: ast.Module) -> bool:
    """Return whether all classes of a module are config sections with `changes_results = False`."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return bool(classes) and all(
        any(
            isinstance(line, ast.AnnAssign)
            and ast.unparse(line.target) == "changes_results"
            and isinstance(line.value, ast.Constant)
            and line.value.value is False
            for line in section.body
        )
        for section in classes
    )


def _canonical(node: object) -> object:
    """A syntax tree as nested tuples, without locations, docstrings and what is empty.

    Python versions differ in the empty fields that nodes have.
    """
    if isinstance(node, ast.AST):
        fields = ((name, _canonical(value)) for name, value in ast.iter_fields(node) if name not in _SILENT)
        return (type(node).__name__, *((name, value) for name, value in fields if value not in (None, ())))
    if isinstance(node, list):
        return tuple(_canonical(entry) for entry in node if not _is_docstring(entry))
    return None if node is None else repr(node)


# What follows from the place of a node, or how a string was written.
_SILENT = ("ctx", "kind", "type_comment", "type_ignores")


def _is_docstring(node: object) -> bool:
    """Return whether a statement is a docstring: of a module, class, function or attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of what a module may import, wherever the statement is, and of the packages around each.

    Args:
        tree: of the module.
        package: the package that it lies in, or is; relative imports start there.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*parts, *([node.module] if node.module else [])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        for name in names:
            yield from (*_around(name), name)
        # What only type checkers import decides nothing.
        skipped = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
        waiting += [child for child in ast.iter_child_nodes(node) if child not in skipped]


def _around(name: str) -> list[str]:
    """The packages around a module, outermost first."""
    steps = name.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
