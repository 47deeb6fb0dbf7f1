"""The kind of machine that computes: sums round differently on another one.

The promise: the same processor kind, torch version and thread count give the same bytes. Elsewhere scores agree
within a tolerance (docs/performance.md), and ties are broken by rounded values.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def machine(device: str = "cpu") -> dict[str, object]:
    """What bits depend on besides model and data, as plain JSON values.

    Arguments:
        device: where the model runs; of a GPU the name counts, not the number.
    """
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    return {
        "device": name,
        "processor": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def use_threads(count: object) -> bool:
    """Compute with so many threads from now on; False where that is so already, or `count` is no count."""
    if type(count) is not int or not 0 < count <= 4096:
        return False
    changed = count != torch.get_num_threads()
    torch.set_num_threads(count)  # also where it is the same: set, it is exact; unset, libraries may take fewer
    return changed


@cache
def processor() -> str:
    """Vendor, model and the vector instructions that torch uses, as in `AuthenticAMD 25/17 AMD EPYC, AVX512`."""
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if not line.strip() and found:
                break  # of the next core
            found[name.strip()] = value.strip()
    except OSError:
        pass  # not Linux
    if "model name" in found:
        family = f"{found.get('cpu family', '')}/{found.get('model', '')}"
        name = f"{found.get('vendor_id', '')} {family} {found['model name']}".strip()
    else:
        name = f"{platform.machine()} {platform.processor()}".strip()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"
