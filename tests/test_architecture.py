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
            names.add(node.module)
            if node.module == "edgespec":
                names |= {f"edgespec.{alias.name}" for alias in node.names}
    return names


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
    seen -= {"export", "models"}
    assert seen <= lower, f"{own} imports {sorted(seen - lower)}"


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
