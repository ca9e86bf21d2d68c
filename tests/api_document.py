"""docs/api.md: its signatures and descriptions are those of the code; `python -m tests.api_document` updates them.

They are read from the source, so that neither torch nor a backend is imported.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

DOCUMENT = ROOT / "docs/api.md"
# Each public name, and the module that defines it.
NAMES = {
    "Bundle": "runtime/edge_lstm/bundle/archive.py",
    "Bundle.open": "runtime/edge_lstm/bundle/archive.py",
    "Bundle.from_bytes": "runtime/edge_lstm/bundle/archive.py",
    "Predictor": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.from_bundle": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.of": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.predict": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.feed": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.reset": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.state": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.load_state": "runtime/edge_lstm/streaming/predictor.py",
    "Predictor.totals": "runtime/edge_lstm/streaming/predictor.py",
    "Reading": "runtime/edge_lstm/streaming/reading.py",
    "Prediction": "runtime/edge_lstm/streaming/reading.py",
    "Driver": "runtime/edge_lstm/streaming/reading.py",
    "Event": "runtime/edge_lstm/streaming/reading.py",
    "Deduplicator": "runtime/edge_lstm/messages/deduplicator.py",
    "Deduplicator.is_new": "runtime/edge_lstm/messages/deduplicator.py",
    "StreamState": "runtime/edge_lstm/streaming/stream_state.py",
    "ExecutionOptions": "runtime/edge_lstm/backends/protocol.py",
    "EdgeLstmError": "runtime/edge_lstm/foundation/errors.py",
    "BundleError": "runtime/edge_lstm/foundation/errors.py",
    "ConfigError": "runtime/edge_lstm/foundation/errors.py",
    "BackendError": "runtime/edge_lstm/foundation/errors.py",
    "ReadingError": "runtime/edge_lstm/foundation/errors.py",
    "train": "train/edge_lstm_train/__init__.py",
    "Run": "train/edge_lstm_train/run.py",
    "Recipe": "train/edge_lstm_train/recipe/recipe.py",
    "read_recipe": "train/edge_lstm_train/recipe/recipe.py",
    "export": "export/edge_lstm_export/__init__.py",
    "adopt": "export/edge_lstm_export/__init__.py",
}
_MADE_BY_OTHERS = ("Bundle", "Predictor", "Recipe")  # classes whose constructor is not public
_WIDTH = 120


def rewritten(document: str) -> str:
    """The document with the signature and the docstring of each of `NAMES` below its heading."""
    for name in NAMES:
        pattern = re.compile(rf"(#+ {re.escape(name)}\n\n)```text\n.*?```\n(.*?)\n<!-- example -->\n", re.DOTALL)
        assert len(pattern.findall(document)) == 1, f"expected one heading {name} with its marks in docs/api.md"
        signature, description = entry(name)
        text = f"```text\n{signature}\n```\n\n{description}\n\n<!-- example -->\n"
        document = pattern.sub(lambda found, text=text: found[1] + text, document)
    return document


def entry(name: str) -> tuple[str, str]:
    """The signature and the whole docstring of a public name, from the source."""
    tree = ast.parse((ROOT / NAMES[name]).read_text(encoding="utf-8"))
    found: ast.AST = tree
    for part in name.split("."):
        found = next(one for one in _definitions(found) if getattr(one, "name", None) == part)
    assert isinstance(found, (ast.FunctionDef, ast.ClassDef))
    description = ast.get_docstring(found)
    assert description, f"expected a docstring for {name}"
    return _signature(name, found), inspect.cleandoc(description)


def _definitions(scope: ast.AST) -> Iterator[ast.AST]:
    """Functions and classes of a module or class, those below `if TYPE_CHECKING` included."""
    for one in getattr(scope, "body", []):
        if isinstance(one, ast.If):
            yield from _definitions(one)
        elif isinstance(one, (ast.FunctionDef, ast.ClassDef)):
            yield one


def _signature(name: str, found: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(found, ast.FunctionDef):
        result = "" if found.returns is None else ast.unparse(found.returns)
        if any(ast.unparse(decorator) == "property" for decorator in found.decorator_list):
            return f"{name}: {result}"
        return _call(name, _parameters(found), f" -> {result}")
    if name in _MADE_BY_OTHERS:
        return f"class {name}"
    for method in _definitions(found):
        if isinstance(method, ast.FunctionDef) and method.name in ("__new__", "__init__"):
            return _call(name, _parameters(method), "")
    fields = [one for one in found.body if isinstance(one, ast.AnnAssign)]
    if not fields:
        return f"class {name}({', '.join(map(ast.unparse, found.bases))})"
    return _call(name, [_named(one.target, one.annotation, _default(one.value)) for one in fields], "")


def _parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    defaults: list[ast.expr | None] = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults]
    plain = [
        _named(ast.Name(one.arg), one.annotation, default)
        for one, default in zip(given.args, defaults, strict=True)
        if one.arg not in ("self", "cls")
    ]
    named = [
        _named(ast.Name(one.arg), one.annotation, default)
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [*plain, *(["*", *named] if named else [])]


def _named(name: ast.expr, annotation: ast.expr | None, default: ast.expr | None) -> str:
    kind = "" if annotation is None else f": {ast.unparse(annotation)}"
    return f"{ast.unparse(name)}{kind}{'' if default is None else f' = {ast.unparse(default)}'}"


def _default(value: ast.expr | None) -> ast.expr | None:
    """A field's default: that of `field(default=...)` where it is written so."""
    if isinstance(value, ast.Call):
        return next((one.value for one in value.keywords if one.arg == "default"), None)
    return value


def _call(name: str, parameters: list[str], result: str) -> str:
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in parameters), f"){result}"])


def blocks(document: str) -> list[tuple[str, str]]:
    """Each ```python block, and the heading that it stands under."""
    found, heading, lines = [], "", iter(document.splitlines())
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line == "```python":
            found.append((heading, "\n".join(iter(lambda: next(lines), "```"))))
    return found


if __name__ == "__main__":
    Path(DOCUMENT).write_text(rewritten(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
