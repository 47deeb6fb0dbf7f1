"""Checks of a model before headwise works on it: it is whole, held plainly, and its pictures fit its tower.

In: a library's model, or what would make one. Out: nothing, or a refusal. It changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from headwise.errors import HeadwiseError, cause
from headwise.towers.base import Model

SIDES = ((60, 40), (33, 99))  # width and height of the probe pictures: neither square nor one another's shape
LARGEST = 12.0  # of a pixel after preprocessing: no published mean and std leads there
QUANTISED = (
    "bitsandbytes",
    "torch.ao.nn.quantized",
    "optimum.quanto",
    "torchao",
    "auto_gptq",
    "gptqmodel",
    "awq",
    "hqq",
)


def check_module(module: nn.Module) -> None:
    """
    Raises:
        HeadwiseError: adapters beside the weights, weights that are elsewhere, quantised ones, or compiled code:
            headwise reads and edits the weights themselves.
    """
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise HeadwiseError(
            f"This is a TorchScript model ({kind}); its blocks cannot be edited. Load the model with its own library "
            "(open_clip, transformers, timm), and the weights with load_state_dict(scripted.state_dict())."
        )
    for name, part in module.named_modules():
        origin = type(part).__module__
        if origin.startswith("peft."):
            raise HeadwiseError(
                f"{kind} has adapters of PEFT beside its weights ({type(part).__name__}"
                f"{f' at {name}' if name else ''}), so editing the weights alone would be wrong. Merge them first: "
                "headwise.wrap(model.merge_and_unload(), processor). (Of a model whose adapters were added with "
                "load_adapter: peft.PeftModel.from_pretrained(base_model, FOLDER).merge_and_unload().)"
            )
        if origin.startswith(QUANTISED):
            raise HeadwiseError(_quantised(kind, f"{type(part).__name__} at {name}"))
    devices = set()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_meta:
            raise HeadwiseError(
                f"{kind}: {name} is on the meta device: the weights are offloaded (device_map=, accelerate) or were "
                "never loaded. Load the whole model on one device, without device_map."
            )
        if isinstance(value, nn.Parameter):
            if not value.is_floating_point() or value.dtype.itemsize == 1 or value.is_quantized:
                raise HeadwiseError(_quantised(kind, f"{name} is {str(value.dtype).removeprefix('torch.')}"))
            if type(value.data) is not torch.Tensor:
                raise HeadwiseError(_quantised(kind, f"{name} is a {type(value.data).__name__}"))
        devices.add(value.device)
    if len(devices) > 1:
        raise HeadwiseError(
            f"{kind} is spread over {', '.join(sorted(map(str, devices)))}. Put it on one: model.to('cuda:0')."
        )


def check_count(build: Callable[[], nn.Module], weights: Iterable[Path], name: str) -> None:
    """Compare what a configuration describes with the size of its weights, before memory is taken for it.

    Arguments:
        build: makes the model; here nothing but its shapes is made.
        weights: the files.
        name: the model, for messages.

    Raises:
        HeadwiseError: more parameters than the files have bytes.
    """
    size = sum(path.stat().st_size for path in weights)
    try:
        with torch.device("meta"):
            count = sum(value.numel() for value in build().parameters())
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError):
        return  # what cannot be made without memory, or at all; the library says so
    if size and count > size:
        raise HeadwiseError(
            f"{name}: its configuration describes {count:,} parameters, its weights have {size:,} bytes. They do not "
            "belong together."
        )


def _quantised(kind: str, what: str) -> str:
    return (
        f"{kind} is quantised ({what}); heads are edited in weights of float32, float16 or bfloat16. Load the model "
        "without quantisation; quantise the refined one."
    )


def check_pixels(model: Model) -> tuple[str, ...]:
    """What there is to say about the pixels that the preprocessing makes.

    Raises:
        HeadwiseError: the preprocessing fails on an ordinary picture, or makes another shape than the tower takes.
    """
    from PIL import Image

    size, largest = model.tower.resolution, 0.0
    for sides in SIDES:
        try:
            pixels = model.preprocess(Image.new("RGB", sides, (120, 60, 200)))
        except Exception as error:  # whatever the library or the user's own function raises
            raise HeadwiseError(
                f"The preprocessing of {model.name} fails on a picture of {sides[0]} × {sides[1]} pixels: {cause(error)}"
            ) from error
        if not isinstance(pixels, torch.Tensor):
            return ()  # a function of the user's own that headwise cannot judge before it is needed
        if tuple(pixels.shape) != (3, size, size):
            raise HeadwiseError(_misfit(model, tuple(pixels.shape), size))
        if not bool(torch.isfinite(pixels.float()).all()):
            raise HeadwiseError(f"The preprocessing of {model.name} makes numbers that are not finite.")
        largest = max(largest, float(pixels.float().abs().max()))
    if largest <= LARGEST:
        return ()
    return (
        f"{model.name}: the preprocessing makes numbers up to {largest:,.0f} of an ordinary picture; towers are trained on "
        "numbers of about −3 to 3. Are its rescaling, mean and std right? (--mean, --std)",
    )


def _misfit(model: Model, found: tuple[int, ...], size: int) -> str:
    way_out = f"--image-size {size} (image_size={size}) makes pictures that fit the model"
    if len(found) == 3 and found[0] == 3 and found[1] == found[2]:
        way_out += f", --image-size {found[1]} interpolates the model's positions to fit the pictures"
    return (
        f"{model.name}: the preprocessing makes {found} of a picture, the tower takes (3, {size}, {size}). {way_out}; "
        "or give the processor that belongs to the model."
    )


# ---- no code from model files


_guarding = threading.Lock()
_guards: list[object] = []  # one for every context that is open
_formers: list[tuple] = []  # what they replaced


@contextmanager
def no_foreign_code() -> Iterator[None]:
    """Inside, transformers neither asks whether to run a model's own Python files nor runs them, whoever calls it.

    Its prompt reads standard input, so `yes |` would answer it; and a configuration may ask for trust by itself.
    """
    from transformers import dynamic_module_utils as dynamic

    def refuse(*_args: object, **_options: object) -> None:
        raise ValueError("custom code was asked for; trust_remote_code is never given")

    with _guarding:  # several threads may load: the first sets the guard, the last takes it away
        if not _guards:
            _formers.append((dynamic.TIME_OUT_REMOTE_CODE, dynamic.get_class_in_module))
            dynamic.TIME_OUT_REMOTE_CODE, dynamic.get_class_in_module = 0, refuse
        _guards.append(refuse)
    try:
        yield
    finally:
        with _guarding:
            _guards.pop()
            if not _guards:
                dynamic.TIME_OUT_REMOTE_CODE, dynamic.get_class_in_module = _formers.pop()


def cannot_load(what: str, error: Exception, hint: str = "") -> HeadwiseError:
    """What to tell a user whose library refuses a model.

    Arguments:
        what: the beginning of the sentence, such as "timm cannot load timm:x".
        hint: what to do about it, where the cause does not say.
    """
    text = cause(error)
    if "trust_remote_code" in text or "custom code" in text:
        return HeadwiseError(
            f"{what}: the model brings Python code of its own, which headwise never runs. Use a model that its "
            "library knows without it, or load it yourself and give it to headwise.wrap."
        )
    return HeadwiseError(f"{what}: {text}" + (f"\n{hint}" if hint else ""))
