"""The package holds together: names, versions, stubs."""

import ast
import re
from pathlib import Path

import lakehouse
from lakehouse import _lakehouse

PACKAGE = Path(__file__).resolve().parents[1]


def setting(file: Path, key: str) -> str:
    found = re.search(rf'^{key} = "(.*)"$', file.read_text(), re.M)
    assert found, f"{file} has no {key}"
    return found[1]


def test_module_is_where_maturin_puts_it():
    assert setting(PACKAGE / "pyproject.toml", "module-name") == _lakehouse.__name__
    assert re.search(
        rf'^name = "{_lakehouse.__name__.rpartition(".")[2]}"$', (PACKAGE / "Cargo.toml").read_text(), re.M
    )
    assert (PACKAGE / setting(PACKAGE / "pyproject.toml", "python-source") / "lakehouse" / "py.typed").exists()


def test_version_is_the_workspaces():
    assert lakehouse.__version__ == setting(PACKAGE.parent / "Cargo.toml", "version")


def names(scope: object) -> set[str]:
    return {name for name in vars(scope) if not name.startswith("_") or name in ("__arrow_c_stream__", "__len__")}


def arguments(node: ast.FunctionDef) -> list[str]:
    rest = [node.args.kwarg] if node.args.kwarg else []
    return [argument.arg for argument in [*node.args.args, *node.args.kwonlyargs, *rest]]


def real_arguments(function: object) -> list[str] | None:
    signature = getattr(function, "__text_signature__", None)
    return signature and re.findall(r"(\w+)(?==|,|\))", re.sub(r"=[^,)]*", "", signature))


def test_stubs_name_what_the_module_has():
    stub = ast.parse((PACKAGE / "python" / "lakehouse" / "_lakehouse.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    assert set(lakehouse.__all__) - {"__version__"} == names(_lakehouse)
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert names(_lakehouse) <= {*classes, *functions}
    for name in names(_lakehouse):
        kind = getattr(_lakehouse, name)
        if name in functions:
            assert arguments(functions[name]) == real_arguments(kind)
            continue
        if issubclass(kind, Exception):
            assert [base.id for base in classes[name].bases] == [kind.__base__.__name__]
            continue
        methods = {node.name: node for node in classes[name].body if isinstance(node, ast.FunctionDef)}
        assert {m for m in methods if not m.startswith("__")} == {m for m in names(kind) if not m.startswith("__")}
        for method, node in methods.items():
            real, stubbed = real_arguments(getattr(kind, method)), arguments(node)
            if real is None:
                continue  # a property
            assert stubbed == real or stubbed[1:] == real, (
                f"{name}.{method}: {stubbed} in the stub, {real} in the module"
            )
