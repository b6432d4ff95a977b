"""Who may import whom, read from the sources; what `import edgespec` loads; sizes of files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from edgespec import errors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgespec"

# Rooms of the package: a row imports lower rows only, never its own.
ROWS = [
    {"types", "errors"},
    {"files", "device", "option"},
    {"protocols", "config"},
    {"decode", "text"},
    {"grammar", "pace"},
    {"backends", "drafters"},
    {"store"},
    {"session"},
    {"check"},
    {"cli"},
]
MOST = {"decode": {"types", "errors", "protocols"}}  # a room that is held to less
FREE = {"__init__", "__main__"}  # the package's own door and `python -m edgespec`
ONLY_IN = {
    "llama_cpp": "edgespec/backends/llamacpp/",
    "onnxruntime": "edgespec/backends/onnx/",
    "torch": "models/",  # training
    "huggingface_hub": "edgespec/store/hub/",
    "rich": "edgespec/cli/",
    "prompt_toolkit": "edgespec/cli/",
}

BY_NAME = {  # registries: modules that are loaded when they are needed
    "__init__.py",
    "backends/__init__.py",
    "backends/preview.py",
    "cli/__init__.py",
    "cli/export_lora.py",  # hands over to edgespec.export, as the others do
    "cli/export_onnx.py",
    "cli/export_pad.py",
    "cli/export_trim.py",
    "drafters/__init__.py",
    "drafters/bridges/__init__.py",
}


def imported(path: Path) -> set[str]:
    """Full names of the modules a file imports, in functions too, for running (not only typing)."""
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if is_own(name) else node.module for name in full}
    return names


def is_own(module: str) -> bool:
    """Whether it is a module of the package, not a name in one."""
    place = ROOT / module.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


def name_of(path: Path) -> str:
    """A source file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(known: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, and what lies between such circles."""
    left = set(known)
    while True:
        needed = set().union(*(known[name] for name in left))
        inner = {name for name in left & needed if known[name] & left}
        if inner == left:
            return sorted(left)
        left = inner


def part(module: str) -> str:
    """The row entry a module edgespec.x.y belongs to."""
    return module.split(".")[1] if "." in module else ""


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_lower_rows_only(path):
    own = part(".".join(["edgespec", *path.relative_to(PACKAGE).with_suffix("").parts]))
    if own in FREE:
        return
    row = next((i for i, entries in enumerate(ROWS) if own in entries), None)
    assert row is not None, f"{own} has no row in the table"
    lower = MOST.get(own) or set().union(*ROWS[:row])
    if path.parent != PACKAGE:
        lower.add(own)  # files of one folder may know each other
    seen = {part(name) for name in imported(path) if name.startswith("edgespec.")}
    assert seen <= lower, f"{own} imports {sorted(seen - lower)}"


def test_no_modules_import_each_other_in_a_circle():
    known = {name_of(path): imported(path) for path in SOURCES}
    assert circle({name: needed - {name} for name, needed in known.items()}) == []


def test_modules_are_imported_by_name_in_registries_only():
    """There a circle would hide."""
    found = set()
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        calls = any(
            isinstance(n, ast.Call) and "import_module" in ast.unparse(n.func) for n in nodes
        )
        words = [str(n.value) for n in nodes if isinstance(n, ast.Constant)]
        if calls and any(word.startswith("edgespec.") for word in words):
            found.add(path.relative_to(PACKAGE).as_posix())
    assert found == BY_NAME


def test_only_the_export_commands_know_the_offline_tools():
    known = {path.relative_to(PACKAGE) for path in SOURCES if "edgespec.export" in path.read_text()}
    assert known
    assert {path for path in known if not path.match("cli/export*.py")} == set()


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_are_imported_in_one_place(library):
    for folder in ("edgespec", "export", "models"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if library in {name.split(".")[0] for name in imported(path)}:
                where = str(path.relative_to(ROOT))
                allowed = (ONLY_IN[library], "export/")
                assert where.startswith(allowed), f"{where} imports {library}"


def test_import_edgespec_loads_numpy_and_the_standard_library_only():
    code = (
        "import sys, time; start = time.process_time(); import numpy; before = set(sys.modules); "
        "import edgespec; took = time.process_time() - start; "
        "new = {n.split('.')[0] for n in set(sys.modules) - before} - {'edgespec'}; "
        "print(sorted(n for n in new if n not in sys.stdlib_module_names), took)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, took = out.stdout.rsplit(" ", 1)
    assert names == "[]"
    assert float(took) < 0.3  # seconds of processor time: a busy machine does not count


def test_the_error_tree_in_the_docstring_is_the_real_one():
    drawn = [line.split()[1] for line in errors.__doc__.splitlines() if line[:1] in "├└" and line]
    real = [c.__name__ for c in errors.EdgeSpecError.__subclasses__()]
    assert drawn == real


def test_no_source_file_exceeds_400_lines():
    sources = [
        p for folder in ("edgespec", "export", "models") for p in (ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 20
    long = {p.name: n for p in sources if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_the_engine_stays_readable():
    assert len((PACKAGE / "decode" / "engine.py").read_text().splitlines()) <= 200
    assert len((PACKAGE / "ARCHITECTURE.md").read_text().splitlines()) <= 150


def test_every_folder_of_the_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} <= set(listed)


def test_the_map_has_every_module_and_folder():
    text = (PACKAGE / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert {one for one in modules | folders if f"`{one}`" not in text} == set()
