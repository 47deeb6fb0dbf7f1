"""A second device for tests on machines without a GPU: the same code, and any mixing of devices is an error.

Its tensors say that they are on `meta`, the one device besides the CPU that every build of torch knows, and keep their
numbers in a tensor of the CPU, which all arithmetic runs on. Where a tensor of the CPU meets one of them, or numpy
asks for one, it fails as a GPU's does. What it cannot show: anything of a GPU's own kernels, memory or speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "meta"
CPU = torch.device("cpu")
aten = torch.ops.aten
CROSSES = ("aten::to", "aten::_to_copy", "aten::copy_")  # what moves tensors between devices
INDEXES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")  # a GPU takes CPU indices


class Elsewhere(torch.Tensor):
    """A tensor of the second device; `held` has its numbers."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=NAME, **layout)  # type: ignore[reportArgumentType]
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})

    def __repr__(self, **_) -> str:
        return f"Elsewhere({self.held})"


def computed(func, args, kwargs):
    """An operation, run on the CPU; its result is where it would be."""
    leaves = tree_leaves((args, kwargs))
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    assert all(x.device == CPU or isinstance(x, Elsewhere) for x in tensors), f"{func} of a tensor without numbers"
    wanted = next((x for x in leaves if isinstance(x, torch.device)), None)
    goes = bool(there) if wanted is None else wanted.type == NAME
    if not there and not goes:
        return func(*args, **kwargs)
    name = func._schema.name
    strict = [args[0], *args[2:]] if name in INDEXES else tensors
    here = [tuple(x.shape) for x in strict if isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) and x.dim()]
    if there and here and name not in CROSSES:
        shapes = [tuple(x.shape) for x in there]
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} of {here} on cpu, {shapes} on {NAME}"
        )
    if func is aten._fused_sdp_choice.default:
        return 0  # the plain formula; the others are chosen by device
    held = {id(x.held): x for x in there}
    values, options = tree_map(_within, (args, kwargs))
    result = func(*values, **options)
    if not goes:
        return result
    if func is aten.copy_.default:
        return args[0]
    # what is computed in place stays the tensor that it was
    return tree_map(lambda x: held.get(id(x), Elsewhere(x)) if isinstance(x, torch.Tensor) else x, result)


def _within(x: object) -> object:
    return x.held if isinstance(x, Elsewhere) else CPU if isinstance(x, torch.device) else x


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What torch does before it comes to an operation."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]), *args[2:])
        if func is torch.Tensor.tolist:
            return func(args[0].cpu())
        if func is torch.Tensor.numpy and isinstance(args[0], Elsewhere):
            raise TypeError(f"can't convert a tensor of {NAME} to numpy; copy it to the CPU first")
        return func(*args, **kwargs)


@contextmanager
def second_device() -> Iterator[str]:
    """Inside, there is a second device of this name."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with (
        mock.patch.object(torch, "autocast", return_value=nullcontext()),  # knows real devices alone
        _Functions(),
        _Operations(),
    ):
        try:
            yield NAME
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
