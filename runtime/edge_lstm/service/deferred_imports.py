"""Modules that paho imports and a service seldom uses: loaded when they are first asked for something.

Without TLS that keeps OpenSSL, HTTP and e-mail out of a service's memory, 5 MB. Python's own LazyLoader does not: to
import a module that waits in sys.modules asks it for its __spec__, and it takes that for use.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _NeverRaisedError(Exception):
    """Stands for an exception of a module that is not there yet, so nothing can raise it."""


# What paho asks of them all the same: these two, at every socket that has nothing or takes nothing.
_SELDOM_USED: dict[str, dict[str, object]] = {
    "ssl": {"SSLWantReadError": _NeverRaisedError, "SSLWantWriteError": _NeverRaisedError},
    "hashlib": {},
    "urllib.request": {},
}


class _Deferred(ModuleType):
    """Stands in `sys.modules` for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who walks through sys.modules asks all of them for __file__
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        vars(self).update(vars(module))
        return getattr(module, name)


def defer_seldom_used() -> None:
    """To be called before paho is imported, by a program's own entrance; what is loaded already stays as it is."""
    for name, meanwhile in _SELDOM_USED.items():
        if name in sys.modules:
            continue
        parent, _, child = name.rpartition(".")
        deferred = _Deferred(name)
        deferred.__spec__ = importlib.util.find_spec(name)
        vars(deferred).update(meanwhile)
        sys.modules[name] = deferred
        if parent:
            setattr(sys.modules[parent], child, deferred)
