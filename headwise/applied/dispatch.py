"""Another forward for modules that are shared, seen by the thread (or asyncio task) that asked for it alone.

While anybody has an edit open on a module, the module's class is a subclass whose `forward` looks up the edits of the
calling context and runs the module's own forward where there are none. The subclass is the same for everybody, comes
with the first edit and goes with the last, so contexts may overlap and end in any order. A class, and not an attribute
of the module: compiled code is guarded by it, and copies of the module (replicas) take its attributes along.
"""

from __future__ import annotations

import copy
import copyreg
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from types import MethodType
from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError

Forwards = Mapping[nn.Module, Callable]  # a module → its forward: (module, *args, **kwargs) → output


class Open:
    """One open set of edits. Closed by its owner from whatever context; then nobody sees it any more."""

    __slots__ = ("forwards",)

    def __init__(self, forwards: Forwards):
        self.forwards: Forwards | None = forwards


_open: ContextVar[tuple[Open, ...]] = ContextVar("headwise_open_edits", default=())  # the innermost is last
_lock = threading.Lock()
_users: dict[nn.Module, int] = {}  # how many open edits there are on each module, of all threads
_classes: dict[type[nn.Module], type[nn.Module]] = {}  # a class → its dispatching subclass
_TLS = "headwise_open_edits"


@contextmanager
def edited(forwards: Forwards) -> Iterator[None]:
    """Inside the context the calling thread or task runs these modules with these forwards; nobody else does."""
    one = Open(forwards)
    with _lock:
        for module in forwards:
            if module not in _users:
                module.__class__ = _dispatching(type(module))
            _users[module] = _users.get(module, 0) + 1
    try:
        _put((*_living(), one))
        yield
    finally:
        one.forwards = None
        _put(_living())
        with _lock:
            for module in forwards:
                _users[module] -= 1
                if not _users[module]:
                    del _users[module]
                    _restore(module)


def _living() -> tuple[Open, ...]:
    return tuple(one for one in _open.get() if one.forwards is not None)


def _put(edits: tuple[Open, ...]) -> None:
    """Set the calling context's edits, also for the threads in which torch runs this thread's backward pass: they
    recompute checkpointed layers."""
    _open.set(edits)
    torch._C._stash_obj_in_tls(_TLS, (threading.get_ident(), edits))


def _current(module: nn.Module) -> Callable | None:
    """The forward that the calling context has put on a module, None where it has none."""
    edits = _open.get()
    if not edits and torch._C._is_key_in_tls(_TLS):
        thread, theirs = torch._C._get_obj_in_tls(_TLS)
        if thread != threading.get_ident():  # torch's own thread, at work for another
            edits = theirs
    for one in reversed(edits):
        forwards = one.forwards
        if forwards is not None and module in forwards:
            return forwards[module]
    return None


def with_forward(own: type[nn.Module], forward: Callable) -> type[nn.Module]:
    """A class that differs from a module's own in `forward` alone: for a module that nobody shares."""
    forward = update_wrapper(forward, own.forward, updated=())
    return _subclass(
        own, {"forward": forward, "__reduce_ex__": _refuse_pickling, "__copy__": _copy, "__deepcopy__": _deepcopy}
    )


def own_class(module: nn.Module) -> type[nn.Module]:
    """A module's class without any edit that is open on it."""
    kind = type(module)
    return kind.__mro__[1] if "_dispatches" in vars(kind) else kind


def _subclass(own: type[nn.Module], members: dict[str, Any]) -> type[nn.Module]:
    return type(own.__name__, (own,), {"__module__": own.__module__, "__qualname__": own.__qualname__, **members})


def _dispatching(own: type[nn.Module]) -> type[nn.Module]:
    if "_dispatches" in vars(own):
        return own
    if own not in _classes:
        _classes[own] = _subclass(
            own,
            {
                "_dispatches": True,
                "forward": _Forward(own),
                "_replicate_for_data_parallel": _replicate,
                "__copy__": _copy,
                "__deepcopy__": _deepcopy,
                "__reduce_ex__": _reduce_plainly,
            },
        )
    return _classes[own]


def _restore(module: nn.Module) -> None:
    if "_dispatches" in vars(type(module)):
        module.__class__ = type(module).__mro__[1]
    put = module.__dict__.pop(_PUT, None)
    if put is not None:  # somebody set a forward inside and wants it to stay
        module.__dict__["forward"] = put


_PUT = "_headwise_forward"  # where a forward that is set on a module meanwhile is kept


class _Forward:
    """`forward` of a dispatching class. It comes before a forward among the module's own attributes, as a monkey
    patch or accelerate puts it there; one that is set meanwhile wraps the edited one, so it comes first."""

    def __init__(self, own: type[nn.Module]):
        @torch.compiler.disable  # compiled code cannot depend on who runs it: the edited attention runs as it is
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            chosen = _current(module)
            if chosen is not None:
                return chosen(module, *args, **kwargs)
            if "forward" in module.__dict__:
                return module.__dict__["forward"](*args, **kwargs)
            return own.forward(module, *args, **kwargs)

        self.forward = update_wrapper(forward, own.forward, updated=())

    def __get__(self, module: nn.Module | None, kind: type | None = None) -> Callable:
        if module is None:
            return self.forward
        return module.__dict__.get(_PUT) or MethodType(self.forward, module)

    def __set__(self, module: nn.Module, value: Callable) -> None:
        if value == MethodType(self.forward, module):
            module.__dict__.pop(_PUT, None)  # put back what was there
        else:
            module.__dict__[_PUT] = value

    def __delete__(self, module: nn.Module) -> None:
        module.__dict__.pop(_PUT if _PUT in module.__dict__ else "forward")


# ---- copies: the edits of the thread that makes one go along, and nobody else's


def _dress(copied: nn.Module, module: nn.Module) -> nn.Module:
    """Give a copy of a module its class."""
    own, forward = own_class(module), _current(module)
    if forward is None:
        copied.__class__ = own
    else:
        copied.__class__ = with_forward(own, forward)
        copied.__dict__.pop("forward", None)  # the edit comes before it, as on the module itself
    return copied


def _replicate(self: nn.Module) -> nn.Module:
    """DataParallel's: each replica runs in a thread of its own."""
    return _dress(nn.Module._replicate_for_data_parallel(self), self)


def _copy(self: nn.Module) -> nn.Module:
    own = own_class(self)
    other = own.__new__(own)
    other.__setstate__(self.__getstate__())
    return _dress(other, self)


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    own = own_class(self)
    other = memo[id(self)] = own.__new__(own)
    other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
    return _dress(other, self)


def _reduce_plainly(self: nn.Module, protocol: Any) -> Any:
    """What is pickled is the model itself, as in its state dict: edits belong to a thread."""
    return copyreg._reconstructor, (own_class(self), object, None), self.__getstate__()  # type: ignore[attr-defined]


def _refuse_pickling(self: nn.Module, protocol: Any) -> Any:
    raise HeadwiseError(
        f"This {type(self).__name__} belongs to a copy that was made while a head mask was applied, and carries the mask "
        "in itself, so it cannot be pickled. Save its state dict and the mask, or merge the mask (headwise.merge)."
    )
