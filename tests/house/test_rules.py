"""The rules of the house: what may import what, how long a file may be, what is never loaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = sorted(folder.name for folder in (ROOT / "apps").iterdir() if (folder / "__init__.py").exists())
CODE = sorted(file for part in ("shared", "apps", "benchmarks") for file in (ROOT / part).rglob("*.py"))
CODE.append(ROOT / "cli.py")
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Each belongs to one app or to one shared module, and is imported where it is used.
DOMAIN = {
    *("monai", "nibabel", "pydicom", "highdicom", "openslide", "h5py", "efficientnet_lite_pytorch"),
    *("decord", "av", "recbole", "pandas", "pyarrow", "sklearn", "seglearn", "tifffile", "mil"),
    *("pretty_midi", "symusic", "music21", "soundfile", "torchaudio", "mido"),
}
HEAVY = DOMAIN | {"torch", "lightning", "torchmetrics", "matplotlib", "scipy", "safetensors", "jinja2"}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """The full names of all modules imported anywhere in `tree`, the names in `importlib` calls too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield ast.unparse(node.args[0]).strip("f'\"")


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", CODE, ids=name)
def test_no_app_is_imported_by_shared_code_or_by_another_app(file: Path) -> None:
    part = file.relative_to(ROOT).parts
    allowed = set(APPS) if part[0] in ("cli.py", "benchmarks") else {part[1]} if part[0] == "apps" else set()
    for module in imports(parsed(file)):
        if module.split(".")[0] == "apps" and file != ROOT / "cli.py":
            assert module.split(".")[1] in allowed, f"{name(file)} imports {module}"


@pytest.mark.parametrize("file", CODE, ids=name)
def test_domain_packages_are_imported_where_they_are_used(file: Path) -> None:
    top = [node for node in parsed(file).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    for module in imports(ast.Module(body=list(top), type_ignores=[])):
        assert module.split(".")[0] not in DOMAIN, f"{name(file)} imports {module} before anybody needs it"


@pytest.mark.parametrize(
    "module", ["cli", *(f"apps.{app}.cli" for app in APPS if (ROOT / "apps" / app / "cli.py").exists())]
)
def test_a_command_line_imports_nothing_heavy(module: str) -> None:
    """What keeps `--help` under a second; a clock would measure the machine instead."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not HEAVY & set(loaded.stdout.split())


@pytest.mark.parametrize("file", CODE + TESTS, ids=name)
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("file", CODE, ids=name)
def test_no_pickle_is_ever_loaded(file: Path) -> None:
    tree = parsed(file)
    assert not {"pickle", "dill", "joblib", "cloudpickle"} & {module.split(".")[0] for module in imports(tree)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if ast.unparse(call.func) == "torch.load":
            assert options.get("weights_only") == "True", f"{name(file)}:{call.lineno}"
        assert options.get("allow_pickle", "False") == "False", f"{name(file)}:{call.lineno}"
