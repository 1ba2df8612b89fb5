"""The laws of CONTRIBUTING.md that import-linter does not know."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_LINES = 400
PURE = {"model.py", "ports.py", "service.py"}
FOREIGN = {"grpc", "starlette", "sqlalchemy", "hydrasms", "google", "aiosqlite"}
SQL_FILES = ("store.py", "tables.py", "audit.py", "_store.py", "audit_guards.py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.split(".")[0])
    return found


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 40


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.name in PURE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_models_ports_and_services_know_no_framework(path):
    assert not imports(path) & FOREIGN


def test_the_law_about_frameworks_would_catch_a_store():
    assert imports(ROOT / "src/core/hydrasms_core/messaging/store.py") & FOREIGN


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if not p.name.endswith(SQL_FILES) and not {"db", "migrations"} & set(p.parts)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_sql_is_in_stores_and_tables_alone(path):
    if path.name in ("migrate.py", "moving.py", "schema.py"):
        return
    assert "sqlalchemy" not in imports(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src").rglob("servicer.py")), ids=lambda path: path.parent.name
)
def test_a_servicers_methods_are_thin(path):
    methods = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.AsyncFunctionDef)
    ]
    assert methods
    for method in methods:
        assert (method.end_lineno or 0) - method.lineno < 16, method.name
        forbidden = (ast.Try, ast.For, ast.While)
        assert not [node for node in ast.walk(method) if isinstance(node, forbidden)], method.name


def test_the_import_laws_hold():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
