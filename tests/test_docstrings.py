"""The docstrings of public functions and records: parameters, results, errors, and fields one by one."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FACES = ("runtime", "calibration", "training", "export", "compare", "demo")
PARTS = ("runtime", "calibration", "training", "export", "compare", "demo")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def list_modules() -> list[Path]:
    """Return the modules of all parts, relative to the root of the repository."""
    return sorted(path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*.py"))


def list_functions() -> list[tuple[str, str]]:
    """Return part and name of every function of every face."""
    return [
        (part, name)
        for part in FACES
        for name in importlib.import_module(f"onspect.{part}").__all__
        if inspect.isfunction(getattr(importlib.import_module(f"onspect.{part}"), name))
    ]


def has_section(docstring: str, name: str) -> bool:
    """Return whether a docstring has a section with this heading and something in it."""
    lines = docstring.splitlines()
    return any(
        line == name and rule == "-" * len(name) and bool(first.strip())
        for line, rule, first in zip(lines, lines[1:], lines[2:], strict=False)
    )


def walk_body(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body, without those of functions within it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def find_missing(function: Function, *, raises: bool) -> list[str]:
    """Return the sections that a function's docstring lacks."""
    docstring = inspect.cleandoc(ast.get_docstring(function) or "")
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    arguments = function.args
    taken = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    result = "Yields" if "contextmanager" in decorators else "Returns"
    gives = function.returns is not None and ast.unparse(function.returns) not in ("None", "NoReturn", "Iterator[None]")
    wanted = {
        "Parameters": any(one is not None and one.arg not in ("self", "cls") for one in taken),
        result: gives and not decorators & {"property", "cached_property"},
        "Raises": raises,
    }
    return [name for name, is_due in wanted.items() if is_due and not has_section(docstring, name)]


def raises_itself(function: Function) -> bool:
    """Return whether a function's own body has a raise statement with an error."""
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in walk_body(function))


def parse_function(function: Callable[..., Any]) -> Function:
    """Return the syntax tree of a function."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, Function)
    return tree


def raises_anything(function: Callable[..., Any], seen: set[object] | None = None) -> bool:
    """Return whether a function raises an error, or calls a function of ours that does or that documents one."""
    seen = set() if seen is None else seen
    if function in seen:
        return False
    seen.add(function)
    tree = parse_function(function)
    if raises_itself(tree) or has_section(inspect.getdoc(function) or "", "Raises"):
        return True
    names = {node.func.id for node in walk_body(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    called = [getattr(function, "__globals__", {}).get(name) for name in names]
    ours = [one for one in called if inspect.isfunction(one) and one.__module__.startswith(("onspect.", __name__))]
    return any(raises_anything(one, seen) for one in ours)


def find_faults(tree: ast.Module) -> Iterator[str]:
    """Yield the public functions of a module that lack a section, and the fields of records that lack a docstring."""
    waiting: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while waiting:
        owner, node = waiting.pop(0)
        if isinstance(node, Function) and not node.name.startswith("_"):
            if any(".command(" in ast.unparse(one) + "(" for one in node.decorator_list):
                continue  # its help describes the options
            if any(ast.unparse(one) == "overload" for one in node.decorator_list):
                continue  # the docstring is that of the implementation
            missing = find_missing(node, raises=raises_itself(node))
            if missing:
                yield f"{owner}{node.name}: {', '.join(missing)}"
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            inherits = bool(node.bases)
            waiting += [(f"{node.name}.", inner) for inner in node.body if not (inherits and _has_none(inner))]
            kinds = " ".join(map(ast.unparse, [*node.decorator_list, *node.bases]))
            if "dataclass" in kinds or "NamedTuple" in kinds:
                after = [*node.body[1:], None]
                for field, following in zip(node.body, after, strict=True):
                    if isinstance(field, ast.AnnAssign) and not _is_text(following):
                        yield f"{node.name}.{ast.unparse(field.target)}: no docstring"


def _has_none(node: ast.stmt) -> bool:
    """Return whether a node is a method without a docstring; ruff (D102) allows that for tables of rules only."""
    return isinstance(node, Function) and ast.get_docstring(node) is None


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_functions_of_a_face_have_all_sections() -> None:
    """Each function has Parameters and Returns if it has any, and Raises if it or a function that it calls raises."""
    missing = {}
    for part, name in list_functions():
        function = getattr(importlib.import_module(f"onspect.{part}"), name)
        missing[part, name] = find_missing(parse_function(function), raises=raises_anything(function))
    assert len(missing) > 40
    assert {name: sections for name, sections in missing.items() if sections} == {}


def test_modules_document_functions_and_fields() -> None:
    """Every public function of a module has its sections, and every field of a record its own docstring."""
    found = {path: list(find_faults(ast.parse((ROOT / path).read_text(encoding="utf-8")))) for path in list_modules()}
    assert len(found) > 300
    assert {path: faults for path, faults in found.items() if faults} == {}


SECTIONS = """
@dataclass
class Part:
    \"\"\"A part.\"\"\"
    size: int
    \"\"\"Pixels.\"\"\"
    seed: int = 0

def read(path: str) -> int:
    \"\"\"Read.

    Parameters
    ----------
    path
        The file.
    \"\"\"
    raise ValueError(path)

def _read(path: str) -> int:
    return 0

class Rule:
    def pick(self) -> int:
        return 0

class Lowest(Rule):
    def pick(self) -> int:
        return 1

    def find(self) -> int:
        \"\"\"Find.\"\"\"
        return 1

@overload
def find(path: str) -> int: ...
"""


def test_faults_are_found() -> None:
    """A missing section and a field without a docstring are found; private and inherited functions are left out."""
    assert sorted(find_faults(ast.parse(SECTIONS))) == [
        "Lowest.find: Returns",
        "Part.seed: no docstring",
        "Rule.pick: Returns",
        "read: Returns, Raises",
    ]


def test_errors_of_called_functions_count() -> None:
    """A function that only calls one that raises needs the section Raises too."""
    assert raises_anything(_calls)
    assert not raises_anything(_is_quiet)


def _calls() -> None:
    _raises()


def _raises() -> None:
    raise ValueError


def _is_quiet() -> int:
    return len("")
