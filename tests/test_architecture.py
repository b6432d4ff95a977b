"""Who may import whom, read from the sources; what `import edgespec` loads; sizes of files."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

import edgespec
from edgespec import errors
from edgespec.decode.engine import Engine
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.paced import Plain
from edgespec.types import SamplingParams

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgespec"

# Rooms of the package: a row imports lower rows only, never its own.
ROWS = [
    {"types", "errors"},
    {"files", "device", "process", "option"},
    {"protocols", "config"},
    {"decode", "text"},
    {"grammar", "pace", "adapt"},
    {"backends", "drafters"},
    {"store"},
    {"session"},
    {"check", "tune", "server"},
    {"cli", "phone"},
]
MOST = {"decode": {"types", "errors", "protocols"}}  # a room that is held to less
FREE = {"__init__", "__main__"}  # the package's own door and `python -m edgespec`
ONLY_IN = {
    "llama_cpp": "edgespec/backends/llamacpp/",
    "onnxruntime": "edgespec/backends/onnx/",
    "torch": "models/",  # training
    "huggingface_hub": "edgespec/store/hub/",
    "starlette": "edgespec/server/",
    "uvicorn": "edgespec/server/",
    "rich": "edgespec/cli/",
    "prompt_toolkit": "edgespec/cli/",
}

BY_NAME = {  # registries: modules that are loaded when they are needed
    "__init__.py",
    "backends/__init__.py",
    "backends/preview.py",
    "cli/__init__.py",
    "cli/adapt_merge.py",
    "cli/adapt_train.py",
    "cli/export_lora.py",  # hands over to edgespec.export, as the others do
    "cli/export_onnx.py",
    "cli/export_pad.py",
    "cli/export_trim.py",
    "drafters/__init__.py",
    "drafters/bridges/__init__.py",
}


@cache
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


def importing(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Files that may import by name, with their texts."""
    texts = [(path, path.read_text(encoding="utf-8")) for path in paths]
    return [one for one in texts if "import_module" in one[1]]


def test_modules_are_imported_by_name_in_registries_only():
    """There a circle would hide."""
    found = set()
    for path, text in importing(SOURCES):
        nodes = list(ast.walk(ast.parse(text)))
        calls = any(
            isinstance(n, ast.Call) and "import_module" in ast.unparse(n.func) for n in nodes
        )
        words = [str(n.value) for n in nodes if isinstance(n, ast.Constant)]
        if calls and any(word.startswith("edgespec.") for word in words):
            found.add(path.relative_to(PACKAGE).as_posix())
    assert found == BY_NAME


def test_modules_imported_by_name_are_there():
    calls = 0
    for path, text in importing([*SOURCES, *(ROOT / "export").rglob("*.py")]):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                name = getattr(node.args[0], "value", None)
                if isinstance(name, str):  # others: names out of a registry
                    calls += 1
                    assert find_spec(name), f"{path.name} imports {name}"
    assert calls


def test_only_the_export_commands_know_the_offline_tools():
    known = {path.relative_to(PACKAGE) for path in SOURCES if "edgespec.export" in path.read_text()}
    assert known
    others = {path for path in known if not path.match("cli/export*.py")}
    assert others == {Path("cli/adapt_merge.py"), Path("cli/adapt_train.py")}


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


def test_a_chat_imports_nothing_that_few_sessions_need():
    code = "import sys, edgespec.cli.chat; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"importlib.metadata", "edgespec.adapt.online", "edgespec.backends.exact", "llama_cpp"}
    assert not slow & set(out.stdout.split())


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


DOCUMENTED = [*SOURCES, *sorted((ROOT / "export").rglob("*.py"))]


@cache
def docstrings(path: Path) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [ast.get_docstring(node, clean=False) or "" for node in nodes if isinstance(node, kinds)]


def names_in(path: Path) -> set[str]:
    """What a file defines at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    defined = [n for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]
    return {node.name for node in defined} | {ast.unparse(target) for target in targets}


@pytest.mark.slow
def test_recipes_in_docstrings_run_as_far_as_their_imports():
    n_names = 0
    for path in DOCUMENTED:
        text = "\n".join(docstrings(path))
        bare = re.search(r"^(from|import) edgespec", text, re.MULTILINE)
        assert not bare, f"{path.name}: the example is not indented"
        for module, names in re.findall(r"^ +from (edgespec\S*) import (.+)$", text, re.MULTILINE):
            for name in names.split(", "):
                assert resolve_name(f"{module}:{name}"), path.name
                n_names += 1
    assert n_names >= 10


def test_names_in_docstrings_are_where_they_say():
    """As in types.Draft, `decode.verify.accept` or edgespec.cli.doctor."""
    defined: dict[str, set[str]] = {}
    for path in DOCUMENTED:
        stem = path.parent.name if path.stem == "__init__" else path.stem
        defined.setdefault(stem, set()).update(names_in(path))
    rooms, wrong = {path.name for path in PACKAGE.iterdir() if path.is_dir()}, set()
    for path in DOCUMENTED:
        text = "\n".join(docstrings(path))
        for module, name in re.findall(r"\b([a-z]\w+)\.([A-Z]\w+)", text):
            if not (name in defined[module] if module in defined else find_spec(module)):
                wrong.add(f"{path.name}: {module}.{name}")
        full = re.findall(r"\bedgespec((?:\.[a-z_0-9]+)+)(?!\w|/|\.[\w*])", text)
        deep = re.findall(r"`(\w+)(\.\w+\.\w+)`", text)
        full += [f".{room}{rest}" for room, rest in deep if room in rooms]
        for name in set(full) - {".json"}:
            try:
                resolve_name(f"edgespec{name}")
            except (ImportError, AttributeError):
                wrong.add(f"{path.name}: edgespec{name}")
    assert wrong == set()


MAP = (PACKAGE / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_the_map_has_every_room():
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert {one for one in modules | folders if f"`{one}`" not in MAP} == set()


def test_the_main_path_is_where_the_map_says():
    named = re.findall(r"`(\w+)`\s+\(`([\w/]+\.py)`\)", MAP)
    assert [name for name, _ in named] == ["Session", "Engine", "Decoding", "accept"]
    calls = {}
    for name, file in named:
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        defined = {
            node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        }
        assert name in defined, f"{file} has no {name}"
        calls[name] = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for (name, _), (onward, _) in itertools.pairwise(named):
        assert onward in calls[name], f"{name} does not lead on to {onward}"


def test_files_the_map_names_exist():
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", MAP))
    everywhere = {str(p.relative_to(root)) for root in (PACKAGE, ROOT) for p in root.rglob("*.py")}
    assert len(named) > 15
    assert {f for f in named if not any(e == f or e.endswith(f"/{f}") for e in everywhere)} == set()


def test_toys_of_the_map_decode_as_plain_decoding_does():
    toys: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", MAP, re.DOTALL)
    assert len(blocks) == 3 and all(len(block.splitlines()) <= 30 for block in blocks)
    for block in blocks:
        exec(block, toys)
    params = SamplingParams(max_tokens=20)

    def said(speculator):
        engine = Engine(toys["Counter"](), speculator)
        return [t for step in engine.stream([3, 4], params) for t in step.verdict.tokens], engine

    expected = [(5 + i) % 10 for i in range(20)]
    assert said(Plain())[0] == expected
    text, engine = said(toys["Twice"](ModelDrafter(toys["Counter"]())))
    assert text == expected and engine.stats.n_accepted >= 12
    text, engine = said(toys["Twice"](toys["Echo"]()))
    assert text == expected and engine.stats.n_drafted > 0
    with edgespec.load(drafter=toys["Echo"](), max_tokens=8, speculative="on") as session:
        drafted = "".join(p.text for p in session.generate("Once upon a time"))
        plain = "".join(p.text for p in session.generate("Once upon a time", speculative="off"))
    assert drafted == plain
