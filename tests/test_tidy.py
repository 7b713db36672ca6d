"""What linters cannot say about the house: direction of imports, purity, length, words."""

from __future__ import annotations

import ast
import importlib
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "millstream"
MODULES = sorted(PACKAGE.rglob("*.py"))

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 600

LONG_FUNCTIONS: frozenset[str] = frozenset()
"""Functions allowed over the limit, as `path:name`; the list only ever gets shorter."""

# Each room may import the rooms named beside it, and itself.
STORAGES = {"storage", "storage_local", "storage_memory", "storage_objects"}
GROUND = frozenset({"errors", "clock", "reality"} | STORAGES)
KERNELS = GROUND | {"jit"}
ROOMS: dict[str, frozenset[str]] = {
    "log": KERNELS,
    "windows": KERNELS,
    "operators": KERNELS | {"log", "windows"},
    "runtime": KERNELS | {"log", "windows", "operators"},
    "plan": KERNELS | {"log", "windows", "operators", "runtime"},
    "dsl": KERNELS | {"log", "windows", "operators", "runtime", "plan"},
    "cli": KERNELS | {"log", "windows", "operators", "runtime", "plan", "dsl", "millstream"},
    "testing": KERNELS | {"log", "windows", "operators", "runtime", "plan", "dsl"},
    "millstream": KERNELS | {"log", "windows", "operators", "runtime", "plan", "dsl", "testing"},
}

MACHINE_MODULES = frozenset(
    {
        "asyncio",
        "fcntl",
        "mmap",
        "multiprocessing",
        "random",
        "ray",
        "shutil",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
        "time",
    }
)
FILE_FUNCTIONS = frozenset(
    {
        "access",
        "chmod",
        "chown",
        "close",
        "copy_file_range",
        "fdatasync",
        "fdopen",
        "fstat",
        "fsync",
        "ftruncate",
        "link",
        "listdir",
        "lstat",
        "makedirs",
        "mkdir",
        "mkfifo",
        "open",
        "pread",
        "pwrite",
        "pwritev",
        "read",
        "readv",
        "remove",
        "removedirs",
        "rename",
        "renames",
        "replace",
        "rmdir",
        "scandir",
        "sendfile",
        "stat",
        "statvfs",
        "symlink",
        "sync",
        "truncate",
        "unlink",
        "urandom",
        "utime",
        "walk",
        "write",
        "writev",
    }
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    """The folder or module of the package that `path` belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return "millstream" if first == "__init__.py" else first.removesuffix(".py")


def may_reach_the_machine(path: Path) -> bool:
    inside = path.relative_to(PACKAGE).as_posix()
    edges = ("runtime/hosts/", "log/hosts/", "log/remote/", "cli/", "storage_local/")
    return inside.startswith(edges) or inside == "clock.py"


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module and, for `from m import n`, also `m.n`; with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def import_breaches(path: Path) -> list[str]:
    room = room_of(path)
    allowed = ROOMS.get(room, KERNELS) | {room}
    breaches = []
    for name, line in imported_names(parse(path)):
        parts = name.split(".")
        if parts[0] != "millstream":
            continue
        # `import millstream` and `from millstream import col` reach for the front door.
        target = parts[1] if len(parts) > 1 else "millstream"
        if not ((PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").exists()):
            target = "millstream"
        if name == "millstream" and room != "cli":
            continue  # the `from millstream import errors` form; judged by its second part
        if target not in allowed:
            breaches.append(f"{relative(path)}:{line}: {room} imports {name}")
    return breaches


def purity_breaches(path: Path) -> list[str]:
    tree = parse(path)
    breaches = [
        f"{relative(path)}:{line}: imports {name}"
        for name, line in imported_names(tree)
        if name.split(".")[0] in MACHINE_MODULES
    ]
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="open")):
                breaches.append(f"{relative(path)}:{node.lineno}: calls open()")
            case ast.Attribute(value=ast.Name(id="os"), attr=attribute) if (
                attribute in FILE_FUNCTIONS
            ):
                breaches.append(f"{relative(path)}:{node.lineno}: uses os.{attribute}")
            case ast.ImportFrom(module="os", names=names):
                breaches.extend(
                    f"{relative(path)}:{node.lineno}: imports os.{alias.name}"
                    for alias in names
                    if alias.name in FILE_FUNCTIONS
                )
            case ast.Attribute(attr="read_text" | "write_text" | "read_bytes" | "write_bytes"):
                breaches.append(f"{relative(path)}:{node.lineno}: touches a file by its path")
            case _:
                pass
    return breaches


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def undocumented(path: Path) -> list[str]:
    found = []

    def visit(node: ast.Module | ast.ClassDef, inside: str) -> None:
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if child.name.startswith("_"):
                continue
            decorators = {ast.unparse(each).split(".")[-1] for each in child.decorator_list}
            if ast.get_docstring(child) is None and not decorators & {"overload", "setter"}:
                found.append(f"{relative(path)}:{child.lineno}: {inside}{child.name}")
            if isinstance(child, ast.ClassDef):
                visit(child, f"{child.name}.")

    tree = parse(path)
    if tree.body and ast.get_docstring(tree) is None:
        found.append(f"{relative(path)}:1: the module")
    visit(tree, "")
    return found


def test_imports_point_one_way() -> None:
    assert [breach for path in MODULES for breach in import_breaches(path)] == []


def test_only_the_edges_reach_the_machine() -> None:
    pure = [path for path in MODULES if not may_reach_the_machine(path)]
    assert [breach for path in pure for breach in purity_breaches(path)] == []


def test_functions_stay_short() -> None:
    long = {
        f"{relative(path)}:{function.name}"
        for path in MODULES
        for function in functions(parse(path))
        if code_lines(function) > FUNCTION_LINES_MAX
    }
    assert long - LONG_FUNCTIONS == set(), "over 60 lines: split it"
    assert LONG_FUNCTIONS - long == set(), "short again: take it off the list"


def test_files_stay_short() -> None:
    assert [
        relative(path)
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES_MAX
    ] == []


def test_public_things_are_documented() -> None:
    assert [each for path in MODULES for each in undocumented(path)] == []


def test_nothing_prints() -> None:
    assert [
        f"{relative(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ] == []


def test_no_work_is_left_in_comments() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [
        f"{relative(path)}:{token.start[0]}"
        for path in MODULES
        for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
        if token.type == tokenize.COMMENT and words.search(token.string)
    ] == []


def test_silenced_checks_say_why() -> None:
    # Each switch is followed by a second comment, which gives the reason.
    silence = re.compile(r"#\s*(no" r"qa|type: ignore)(?P<rest>.*)")
    found = []
    for path in MODULES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = silence.search(line)
            if match is not None and "#" not in match["rest"]:
                found.append(f"{relative(path)}:{number}")
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_can_be_imported(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    importlib.import_module(".".join(parts).removesuffix(".__init__"))


def test_importing_the_package_leaves_heavy_libraries_alone() -> None:
    program = (
        "import sys, millstream; "
        "heavy = {'numba', 'duckdb', 'ray', 'pandas', 'polars', 'matplotlib', 'typer'}; "
        "sys.stdout.write(' '.join(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_opening_a_log_imports_only_what_every_job_needs() -> None:
    # Every process of a job waits for it, again after a failure.
    program = (
        "import sys, millstream.log; "
        "few = ('millstream.log.groups.', 'millstream.log.cleaner', 'millstream.log.compaction', "
        "'millstream.log.erasure', 'millstream.log.backup', 'pyarrow.fs', 'pyarrow._s3fs'); "
        "sys.stdout.write(' '.join(each for each in sys.modules if each.startswith(few)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class TestTheChecksThemselves:
    """Each check must be able to fail."""

    @staticmethod
    def breaches_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
        module = sys.modules[__name__]
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "PACKAGE", tmp_path / "millstream")
        path = tmp_path / "millstream" / "log" / "example.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        for room in ("runtime", "dsl"):
            (tmp_path / "millstream" / room).mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return import_breaches(path) + purity_breaches(path) + undocumented(path)

    @pytest.mark.parametrize(
        "line",
        [
            "from millstream.runtime import graph",
            "from millstream import dsl",
            "from millstream import col",
            "import threading",
            "from time import sleep",
            "import os\nos.rename('a', 'b')",
            "from os import unlink",
            "content = open('a')",
        ],
    )
    def test_a_breach_is_found(
        self, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.breaches_of(tmp_path, monkeypatch, f'"""Doc."""\n{line}\n')

    @pytest.mark.parametrize("line", ["import os\nhome = os.environ", "from millstream import log"])
    def test_what_is_allowed_passes(
        self, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.breaches_of(tmp_path, monkeypatch, f'"""Doc."""\n{line}\n') == []

    def test_a_missing_docstring_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = '"""Doc."""\ndef public():\n    pass\n'
        assert self.breaches_of(tmp_path, monkeypatch, text)
