"""The code keeps its shape: imports go one way only, and every module fits into one head."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

# what a module may import stands before it; modules of one layer may import each other, but not in a circle
LAYERS = (
    ("utils",),
    ("system",),
    ("datasets",),
    ("data", "model"),
    ("networks",),
    ("anatomy",),
    ("scoring",),
    ("measures",),
    ("pages",),
    ("prediction",),
    ("batch", "training"),
    ("scripts",),
    ("research",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted([*ROOT.glob("*.py"), *(f for name in LAYER for f in ROOT.glob(f"{name}/*.py"))])
    if path.name != "__init__.py"
}


def layer_of(module: str) -> int:
    """The layer of a module: that of its package or, for a top-level script, the last."""
    return LAYER.get(module.split(".")[0], LAYER["scripts"])


def imports_of(path: Path) -> set[str]:
    """The modules of this project that a file imports, also inside functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & MODULES.keys()


def test_all_modules_are_looked_at():
    packages = {module.split(".")[0] for module in MODULES if "." in module}
    assert packages == {name for names in LAYERS for name in names if (ROOT / name).is_dir()}
    assert {"augment", "data", "model", "train", "test", "utils", "predict", "demo"} <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_back_up(module):
    above = {other for other in imports_of(MODULES[module]) if layer_of(other) > layer_of(module)}
    assert not above, f"{module} imports {', '.join(sorted(above))}"


def test_no_modules_import_each_other():
    imports = {module: imports_of(path) for module, path in MODULES.items()}
    while leaves := [module for module, needed in imports.items() if not needed]:
        for leaf in leaves:
            del imports[leaf]
        for needed in imports.values():
            needed.difference_update(leaves)
    assert not imports, f"a circle of imports: {', '.join(sorted(imports))}"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("research.")])
def test_a_module_has_at_most_300_lines(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300


def top_level_names(path: Path) -> set[str]:
    """The functions, classes and variables that a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names


def test_no_top_level_name_stands_twice_in_the_product():
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        if not module.startswith("research."):
            for name in top_level_names(path) - {"main", "parse_args"}:  # of every script
                homes.setdefault(name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
    assert homes["read_eyes"] == ["data"] and homes["VIEWS"] == ["prediction.segmentation"]


def test_names_that_a_module_imports_from_another_are_there():
    # scripts of research are not run by the tests, and types are not checked there
    imports: dict[str, list[ast.ImportFrom]] = {}
    there: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imports[module] = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        every = [
            alias for node in nodes if isinstance(node, ast.ImportFrom | ast.Import) for alias in node.names
        ]
        there[module] = top_level_names(path) | {alias.asname or alias.name for alias in every}
    missing = [
        f"{module} imports {alias.name} from {node.module}"
        for module, nodes in imports.items()
        for node in nodes
        if node.module in there
        for alias in node.names
        if alias.name not in there[node.module]
    ]
    assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_tables_are_written_by_write_csv_and_read_whether_marked_or_not(module):
    text = MODULES[module].read_text(encoding="utf-8")
    if module != "system.files":
        assert not re.search(r"csv\.(writer|DictWriter)|to_csv|savetxt", text)
    if re.search(r"csv\.(reader|DictReader)", text):
        assert 'encoding="utf-8-sig"' in text


def headings(page: Path) -> set[str]:
    """What a link to a page of Markdown may name after a #: its headings, as GitHub writes them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower() for title in titles]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


def test_every_link_of_the_docs_leads_somewhere():
    pages = [page for folder in ("", "docs", "files", "tests") for page in (ROOT / folder).glob("*.md")]
    link = r"\]\(([^)#\s]*)#?([^)\s]*)\)"
    links = [(page, *of) for page in pages for of in re.findall(link, page.read_text(encoding="utf-8"))]
    assert len(links) > 100
    for page, file, heading in links:
        target = page.parent / file if file else page
        if not file.startswith("http"):
            assert target.exists(), f"{page.name}: {file}"
            assert not heading or target.suffix != ".md" or heading in headings(target), (
                f"{page.name}: {file}#{heading}"
            )
