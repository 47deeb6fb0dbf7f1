"""Whether edits fit a tower.

In: a tower or model, and edits. Out: nothing, or a refusal: another grid, other weights, another function around equal
weights. It runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers.base import Model, Tower
from headwise.towers.probes import changed


def check_present(tower: Tower) -> None:
    """
    Raises:
        HeadwiseError: weights that are not in memory, or are kept as integers.
    """
    for name, parameter in tower.parts.named_parameters():
        if parameter.is_meta and not _readable(parameter):
            raise HeadwiseError(
                f"{tower.family}: the weights are not in memory ({name} is on the device 'meta'), as after offloading "
                "with device_map. Load the model without offloading (device_map=None)."
            )
        if not parameter.is_floating_point():
            raise HeadwiseError(
                f"{tower.family}: {name} is kept as {str(parameter.dtype).removeprefix('torch.')}: the model is "
                "quantized. Load it in float32, float16 or bfloat16 (without a quantization_config)."
            )


def _readable(tensor: torch.Tensor) -> bool:
    """Whether a tensor has numbers: one of a class of its own may say `meta` and hold them elsewhere."""
    try:
        tensor.detach().cpu()
    except NotImplementedError:  # what torch raises for a tensor without data
        return False
    return True


def check_fits(tower: Tower, mask: Mask, *, check_weights: bool = True) -> None:
    """
    Raises:
        HeadwiseError: the edits are for another grid or other weights, or heads of this tower cannot have them.
    """
    if mask.grid != tower.grid:
        raise HeadwiseError(
            f"The edits are for {mask.grid}, this model has {tower.grid}. Edits fit only the model they were found on."
        )
    wanted = mask.provenance.get("weights_hash")
    if check_weights and wanted and wanted != tower.weights_hash:
        raise HeadwiseError(
            f"The edits were found on {mask.provenance.get('base_model', 'another model')} (weights {wanted}); this "
            f"model's weights are {tower.weights_hash}. Edits fit only the weights they were found on. If it is the "
            "same model in another precision, pass check_weights=False (--no-check-weights)."
        )
    tower.check_mask(mask)


def check_functions(model: Model, mask: Mask, *, check_weights: bool = True, image: bool = True) -> None:
    """
    Arguments:
        check_weights: False checks nothing.
        image: also what the image tower itself computes; not inside a context that edits it.

    Raises:
        HeadwiseError: around equal weights the model's preprocessing, tokenizer or image tower does something else
            than where the edits were found.
    """
    about = mask.provenance.get("functions")
    if not check_weights or not isinstance(about, Mapping):
        return
    if others := changed({key: value for key, value in about.items() if image or key != "image"}, model):
        raise HeadwiseError(
            f"The edits were found on {mask.provenance.get('base_model', 'another model')}. {model.name} has its "
            f"weights, but {'; '.join(others)}. Its scores would be of another model: compare the folders' "
            "configuration, processor and tokenizer files. If that is meant, pass check_weights=False "
            "(--no-check-weights)."
        )
