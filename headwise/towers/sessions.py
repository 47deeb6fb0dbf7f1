"""Exported networks as something that runs on the CPU: ONNX files by onnxruntime, OpenVINO's by OpenVINO.

In: a file. Out: a session, and what it makes of inputs, (B, E). What the network is, is not known here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from headwise.errors import HeadwiseError, cause
from headwise.towers.tools import need

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Session:
    """A network that is ready.

    Arguments:
        inputs: the names that it wants.
        answer: arrays by name → embeddings (B, E).
    """

    inputs: frozenset[str]
    answer: Callable[[Feed], np.ndarray]


def session(path: Path) -> Session:
    """A network with as many threads as torch has.

    Arguments:
        path: `*.onnx`, or `*.xml` with its `*.bin` beside it.

    Raises:
        HeadwiseError: the library that runs it is not installed, or the file is not one that it runs.
    """
    return _openvino(path) if path.suffix == ".xml" else _onnxruntime(path)


def run(opened: Session, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What a session makes of inputs by name, (B, E) float32."""
    feed = {name: value.detach().cpu().numpy() for name, value in inputs.items() if name in opened.inputs}
    return torch.from_numpy(np.array(opened.answer(feed), np.float32))


def openvino() -> ModuleType:
    """OpenVINO without `openvino_telemetry`, by which it tells its makers of every import; it has a stub for that.

    Raises:
        HeadwiseError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return need("openvino", "openvino")


def _onnxruntime(path: Path) -> Session:
    ort: Any = need("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        opened = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own
        raise HeadwiseError(f"onnxruntime cannot run {path}: {cause(error)}. Export the model again.") from error
    return Session(frozenset(one.name for one in opened.get_inputs()), lambda feed: opened.run(None, dict(feed))[0])


def _openvino(path: Path) -> Session:
    library: Any = openvino()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # bfloat16 else
    try:
        core = library.Core()
        opened = core.compile_model(core.read_model(str(path)), "CPU", settings)
    except Exception as error:  # OpenVINO raises kinds of its own
        raise HeadwiseError(f"OpenVINO cannot run {path}: {cause(error)}. Export the model again.") from error
    names = frozenset(one.get_any_name() for one in opened.inputs)
    return Session(names, lambda feed: opened(dict(feed))[0])
