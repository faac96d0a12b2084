"""Reading the data in a pickle without unpickling it: nothing is imported, called or built but plain containers.

A pickle is a program, and unpickling a stranger's runs it. Here its instructions are listed by `pickletools`, which
executes none, and only those that make numbers, text, bytes, lists, tuples and dictionaries are followed. A call is
noted, never made; the one note that is understood is how numpy writes an array of bytes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import DatasetError

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before numpy 2, and since


class _PickleError(ValueError):
    """The pickle holds what is no plain data."""


@dataclass(frozen=True)
class _Name:
    """What a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class _Call:
    """What a pickle would call, and the state that it would give the result."""

    target: _Name
    arguments: tuple[Any, ...]
    state: Any = None


class _Mark:
    """A place on the stack."""


def read_plain_pickle(path: Path) -> Any:
    """Return the plain data of a pickle: None, bool, int, float, str, bytes, list, tuple, dict, arrays of uint8.

    Text of Python 2 is bytes. Raises DatasetError where the file cannot be read, is damaged, or holds anything else.
    """
    try:
        return _resolve(_follow(path.read_bytes()))
    except OSError as error:
        raise DatasetError(f"cannot read {str(path)!r}: {describe_os_error(error)}") from error
    except _PickleError as error:
        raise DatasetError(
            f"{str(path)!r} holds {error}, which is no plain data; nothing of it was executed, and it is not used"
        ) from error
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{str(path)!r} is no pickle or is damaged ({error}); fetch it again") from error


def _follow(data: bytes) -> Any:
    """Follow a pickle's instructions on a stack and return what it ends with, calls noted in their places."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _PUSHES:
            stack.append(argument)
        elif name in ("SHORT_BINSTRING", "BINSTRING", "STRING"):
            stack.append(str(argument).encode("latin-1"))  # bytes, listed as text
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument or 0)])
        elif name in _STEPS:
            _STEPS[name](stack)
        elif name == "GLOBAL":
            stack.append(_Name(*str(argument).split(" ", 1)))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _PickleError(f"the instruction {name}")
    raise ValueError("it does not end")


def _cut(stack: list[Any]) -> list[Any]:
    """Take what lies above the last mark, and the mark, from the stack."""
    place = max(index for index, item in enumerate(stack) if isinstance(item, _Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _tuple(stack: list[Any], count: int) -> None:
    items = tuple(stack[len(stack) - count :])
    del stack[len(stack) - count :]
    stack.append(items)


def _append(stack: list[Any]) -> None:
    item = stack.pop()
    _container(stack, list).append(item)


def _appends(stack: list[Any]) -> None:
    items = _cut(stack)
    _container(stack, list).extend(items)


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    _container(stack, dict)[key] = value


def _set_items(stack: list[Any]) -> None:
    items = _cut(stack)
    _container(stack, dict).update(_pairs(items))


def _container(stack: list[Any], kind: type) -> Any:
    if type(stack[-1]) is not kind:
        raise _PickleError(f"a {type(stack[-1]).__name__} that is filled as a {kind.__name__}")
    return stack[-1]


def _note_name(stack: list[Any]) -> None:
    name, module = stack.pop(), stack.pop()
    stack.append(_Name(str(module), str(name)))


def _note_call(stack: list[Any]) -> None:
    arguments, target = stack.pop(), stack.pop()
    if not isinstance(target, _Name) or not isinstance(arguments, tuple):
        raise _PickleError("a call of what is no name")
    if (target.module, target.name) == ("_codecs", "encode") and arguments[1:] == ("latin1",):
        stack.append(bytes(arguments[0], "latin-1"))  # how Python 3 writes bytes for Python 2
    else:
        stack.append(_Call(target, arguments))


def _note_state(stack: list[Any]) -> None:
    state = stack.pop()
    if not isinstance(stack[-1], _Call):
        raise _PickleError("a state for what is no object")
    stack[-1].state = state


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_PUSHES = frozenset((*_NUMBERS, *_TEXTS, "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"))
_STEPS: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE": lambda stack: stack.append(tuple(_cut(stack))),
    "TUPLE1": lambda stack: _tuple(stack, 1),
    "TUPLE2": lambda stack: _tuple(stack, 2),
    "TUPLE3": lambda stack: _tuple(stack, 3),
    "LIST": lambda stack: stack.append(_cut(stack)),
    "DICT": lambda stack: stack.append(_pairs(_cut(stack))),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "STACK_GLOBAL": _note_name,
    "REDUCE": _note_call,
    "BUILD": _note_state,
}


def _resolve(item: Any) -> Any:
    """Return plain data with its notes of calls understood, or raise _PickleError."""
    if isinstance(item, _Call):
        return _understand(item)
    if isinstance(item, dict):
        return {_resolve(key): _resolve(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(_resolve(value) for value in item)
    if isinstance(item, _Name | _Mark):
        raise _PickleError(f"a reference to {item}" if isinstance(item, _Name) else "a mark")
    return item


def _understand(call: _Call) -> NDArray[np.uint8]:
    target = call.target
    if target.module in _MODULES and target.name == "_reconstruct" and isinstance(call.state, tuple):
        _, shape, dtype, by_column, content = call.state
        values = np.frombuffer(_resolve(content), _dtype(dtype))
        return values.reshape(_resolve(shape), order="F" if by_column else "C")
    raise _PickleError(f"a call of {target}")


def _dtype(dtype: Any) -> type[np.uint8]:
    if isinstance(dtype, _Call) and str(dtype.target) == "numpy.dtype" and dtype.arguments[:1] in (("u1",), (b"u1",)):
        return np.uint8
    raise _PickleError("an array of other values than bytes")
