"""Modules that paho imports and a service rarely uses: loaded at their first use.

Without TLS this saves 5 MB of memory: OpenSSL, HTTP and e-mail. Python's own LazyLoader does not help: an import of a
module in sys.modules reads its __spec__, and LazyLoader takes that for a use.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _NeverRaisedError(Exception):
    """Stands for an exception of a module that is not loaded yet, so nothing can raise it."""


# What paho reads from them without TLS: these two, at every socket that would block.
_RARELY_USED: dict[str, dict[str, object]] = {
    "ssl": {"SSLWantReadError": _NeverRaisedError, "SSLWantWriteError": _NeverRaisedError},
    "hashlib": {},
    "urllib.request": {},
}


class _Deferred(ModuleType):
    """Stands in `sys.modules` for a module until it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # code that walks through sys.modules reads __file__ of all
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        vars(self).update(vars(module))
        return getattr(module, name)


def defer_rarely_used() -> None:
    """Defer these modules. Call it in a program's entry point, before paho is imported; loaded modules stay loaded."""
    for name, stand_ins in _RARELY_USED.items():
        if name in sys.modules:
            continue
        parent, _, child = name.rpartition(".")
        deferred = _Deferred(name)
        deferred.__spec__ = importlib.util.find_spec(name)
        vars(deferred).update(stand_ins)
        sys.modules[name] = deferred
        if parent:
            setattr(sys.modules[parent], child, deferred)
