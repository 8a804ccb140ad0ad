"""Read the attributes of an object without running any code of its class."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import is_dataclass
from inspect import isroutine
from types import MemberDescriptorType, ModuleType
from typing import Any


def attributes_of(value: object) -> dict[str, Any]:
    """Return the attributes stored in an object; none for functions, classes and exceptions.

    These are all fields of dataclasses and attrs classes, and the public attributes of other
    objects. The call computes no property and loads no unloaded attribute of an ORM.
    """
    if isinstance(value, (type, ModuleType, BaseException)) or isroutine(value):
        return {}
    held = _slots(value)
    with suppress(AttributeError):
        held |= object.__getattribute__(value, "__dict__")
    extra = held.get("__pydantic_extra__")  # the fields that a pydantic model does not declare
    kind = type(value)
    if is_dataclass(kind) or hasattr(kind, "__attrs_attrs__"):
        return {name: item for name, item in held.items() if name[:2] != "__"}
    public = {name: item for name, item in held.items() if name[:1] != "_"}
    return public | extra if isinstance(extra, dict) else public


def _slots(value: object) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for kind in reversed(type(value).__mro__):
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            slot = kind.__dict__.get(name)
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):  # it is empty
                    held[name] = slot.__get__(value, kind)
    return held
