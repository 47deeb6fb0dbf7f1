"""One tower as an ONNX file: exported by torch's dynamo exporter, perhaps in a lower precision.

In: a module, inputs of it, a precision, inputs to calibrate on. Out: a file. Whether what it computes is close enough
is asked elsewhere; how it is run, is known in `towers/onnx.py`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headwise.errors import HeadwiseError, cause
from headwise.staging import temporary
from headwise.towers.tools import need

PRECISIONS = ("float32", "float16", "int8")
OUTPUT = "embeddings"
LARGEST_FILE = 1_900_000_000  # bytes; protobuf ends at 2 GiB, and larger weights lie beside the graph
Inputs = Mapping[str, torch.Tensor]


def write_graph(graph: nn.Module, example: Inputs, path: Path, *, keywords: bool) -> None:
    """Export a module; every input's batch may have any size, and its second dimension where the module allows it.

    Arguments:
        example: inputs of at least two examples.
        keywords: the module takes `**inputs`, not one `images`.

    Raises:
        HeadwiseError: onnx or onnxscript is not installed, or torch cannot export the module.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "onnx")
    any_size, if_it_can = torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO
    free = {name: {0: any_size, **({1: if_it_can} if keywords else {})} for name in example}
    size = 4 * sum(parameter.numel() for parameter in graph.parameters())
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph,
                () if keywords else tuple(example.values()),
                kwargs=dict(example) if keywords else None,
                dynamo=True,
                input_names=list(example),
                output_names=[OUTPUT],
                dynamic_shapes={"inputs": free} if keywords else free,
                verbose=False,
                external_data=size > LARGEST_FILE,
            )
        except Exception as error:  # the exporter raises many kinds
            raise HeadwiseError(
                f"torch cannot export this {type(graph).__name__} to ONNX: {cause(error)}. Please report the model's "
                "configuration."
            ) from error
        assert program is not None
        program.save(str(path), external_data=size > LARGEST_FILE)


def lower(path: Path, precision: str, calibration: Sequence[Inputs]) -> None:
    """Put a float32 file into another precision, in place.

    float16: weights and arithmetic, inputs and outputs stay float32. int8: linear layers alone, weights per channel,
    activations by the smallest and largest values that `calibration` gives: rare pictures have the largest, so many
    that are spread over the data count for more than a few neighbours. Weights are unsigned: products with signed ones
    overflow their 16 bits on processors without VNNI.
    """
    if precision == "float32":
        return
    import onnx

    with _quiet(), temporary() as work:
        if precision == "float16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), path)
            return
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready, made = work / "ready.onnx", work / "made.onnx"
        quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(made),
            _reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            nodes_to_quantize=_linear_layers(onnx.load(str(ready))),
            extra_options={"DisableShapeInference": True},
        )
        save(onnx.load(str(made)), path)


def save(proto: Any, path: Path) -> None:
    """Write an ONNX model over a file, weights beside it where they are too many for one."""
    import onnx

    beside = path.with_name(f"{path.name}.data")
    path.unlink(missing_ok=True)
    beside.unlink(missing_ok=True)
    if proto.ByteSize() > LARGEST_FILE:
        onnx.save_model(proto, str(path), save_as_external_data=True, location=beside.name)
    else:
        onnx.save_model(proto, str(path))


def describe(path: Path, facts: Mapping[str, str]) -> None:
    """Put metadata into an ONNX file: name → text."""
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(proto, {**{prop.key: prop.value for prop in proto.metadata_props}, **facts})
    onnx.save_model(proto, str(path))


def _linear_layers(proto: Any) -> list[str]:
    """Products with weights: attention's own products, of two activations, stay in float32."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm") and any(name in weights for name in node.input)
    ]


def _reader(calibration: Sequence[Inputs]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            batch = next(self.left, None)
            return None if batch is None else {name: value.numpy() for name, value in batch.items()}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters and quantisers warn of their own affairs; what counts is compared afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
