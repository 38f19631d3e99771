"""The import rules: data flows down, never back; the device side is free of torch; heavy modules load lazily."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgetl"
BASE = (
    "_version",
    "errors",
    "packages",
    "failures",
    "shell",
    "process",
    "processor",
    "quiet",
    "progress",
    "keys",
    "records",
    "files",
    "locks",
    "statistics",
    "inputs",
    "tasks",
    "guide",
)
# In the order of the flow. A module may import from its own row and the rows above it. Pruning stands below
# distillation, with whose losses it recovers.
ROWS: tuple[str, ...] = (
    *BASE,
    "overrides",
    "config",
    "data",
    "models",
    "train",
    "distill",
    "prune",
    "export",
    "quantize",
    "bundle",
    "runtime",
    "bench",
    "history",
    "measure",
    "transfer",
    "deploy",
    "gate",
    "comparison",
    "cascade",
    "report",
    "pipeline",
    "search",
    "cli",
    "__main__",
)
DEVICE = (
    "export.tensorrt",
    "bundle",
    "runtime",
    "bench",
    "history",
    "deploy.oci",
    "deploy.server",
    "gate",
    "comparison",
    "report",
    *BASE,
)
HOST_ONLY = ("torch", "torchvision", "timm", "pydantic", "onnx", "sklearn")
ENGINE_HOMES = {
    "onnxruntime": (
        "runtime.engines.onnxruntime",
        "quantize.",
        "export.parity",
        "export.graphs",
        "export.half_precision",
    ),
    "tensorrt": ("export.tensorrt.builder", "runtime.engines.tensorrt"),
    "tensorrt_rtx": ("export.tensorrt.builder", "runtime.engines.tensorrt"),
    "cuda": ("runtime.engines.tensorrt",),
    "openvino": ("runtime.engines.openvino", "quantize.stage"),
    "ai_edge_litert": ("export.litert.flat", "export.litert.inside", "runtime.engines.litert"),
    "cv2": ("runtime.video",),
    "cryptography": ("bundle.signature",),
    "soundfile": ("inputs.recordings",),
    "sounddevice": ("runtime.listening",),
    "mlperf_loadgen": ("bench.loadgen",),
    "starlette": ("deploy.server.app",),
    "uvicorn": ("deploy.server.running",),
}


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Every import in a file as (dotted name, whether it stands at the module's top level outside TYPE_CHECKING)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for part in node.body for child in ast.walk(part))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(child for child in ast.walk(node) if child is not node)
    found = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node not in inside
            found += [(f"{node.module}.{alias.name}", top) for alias in node.names]
    return found


def _row(module: str) -> int:
    return ROWS.index(module.partition(".")[0])


def _is_device(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in DEVICE)


def test_every_module_has_a_row() -> None:
    assert len(MODULES) > 200
    assert {module.partition(".")[0] for module in MODULES} == set(ROWS)


def _own_imports() -> dict[str, set[str]]:
    """The package's modules, each with those that it imports, lazily or not."""
    found = {}
    for module, path in MODULES.items():
        names = {name.removeprefix("edgetl.") for name, _ in _imports(path) if name.startswith("edgetl.")}
        found[module] = {name if name in MODULES else name.rpartition(".")[0] for name in names} - {
            module,
            "",
        }
    return found


def test_data_flows_down() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in _own_imports().items()
        for target in targets
        if _row(target) > _row(module)
    ]
    assert wrong == []


def test_no_imports_go_round_in_a_circle() -> None:
    remaining = _own_imports()
    while free := {module for module, targets in remaining.items() if not targets & remaining.keys()}:
        remaining = {module: targets for module, targets in remaining.items() if module not in free}
    assert sorted(remaining) == []


def test_the_base_stands_on_numpy_and_pillow_alone() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "PIL"}
    wrong = []
    for module, path in MODULES.items():
        if not module.startswith(BASE):
            continue
        for name, _ in _imports(path):
            first, _, rest = name.partition(".")
            if module in ENGINE_HOMES.get(first, ()):
                continue  # where its own test looks
            if first not in allowed and not (first == "edgetl" and rest.partition(".")[0] in BASE):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_the_device_side_names_no_host_library() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if _is_device(module)
        for name, _ in _imports(path)
        if name.partition(".")[0] in HOST_ONLY
        and not (module == "export.tensorrt.builder" and name.startswith("onnx."))
    ]
    assert wrong == []


@pytest.mark.parametrize("engine", ENGINE_HOMES)
def test_engines_are_imported_lazily_and_only_at_home(engine: str) -> None:
    wrong, used = [], 0
    for module, path in MODULES.items():
        for name, top in _imports(path):
            if name == engine or name.startswith(engine + "."):
                used += 1
                if top or not module.startswith(ENGINE_HOMES[engine]):
                    wrong.append(f"{module} imports {name}{' at its top level' if top else ''}")
    assert wrong == []
    assert used or engine != "onnxruntime"


def _named_by(node: ast.AST) -> list[str]:
    """The modules that a statement imports, in any of the three ways."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case (
            ast.Assign(value=ast.AST() as value)
            | ast.Expr(value=value)
            | ast.Return(value=ast.AST() as value)
        ):
            calls = [call for call in ast.walk(value) if isinstance(call, ast.Call) if call.args]
            words = [call.args[0] for call in calls if "import_module" in ast.dump(call.func)]
            return [
                word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)
            ]
        case _:
            return []


def test_engines_that_report_home_are_imported_quietly() -> None:
    wrong, seen = [], set()
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        quiet = {
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and "quietly" in ast.dump(node.items[0].context_expr)
            for child in node.body
        }
        for node in ast.walk(tree):
            names = _named_by(node)
            seen |= (found := {name.partition(".")[0] for name in names} & {"onnxruntime", "openvino"})
            if found and node not in quiet:
                wrong.append(f"{module} imports {found.pop()}")
    assert wrong == []
    assert seen == {"onnxruntime", "openvino"}


def _loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_edgetl_is_light() -> None:
    assert not _loaded_after("import edgetl") & {"torch", "onnxruntime", "rich", "numpy", "pydantic", "typer"}


def test_device_modules_load_no_torch() -> None:
    device = [f"edgetl.{m}" for m in MODULES if _is_device(m)]
    assert len(device) > 10
    loaded = _loaded_after("import " + ", ".join(device))
    assert not loaded & {*HOST_ONLY, *ENGINE_HOMES}


def test_the_command_line_loads_lazily() -> None:
    assert not _loaded_after("import edgetl.cli") & {*HOST_ONLY, "onnxruntime", "numpy", "PIL"}
