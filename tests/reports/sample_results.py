"""Results as `headwise refine` writes them, with invented but plausible numbers."""

import copy
import random


def metrics(mean: float) -> dict[str, float]:
    out = {}
    for direction, shift in (("image", -0.01), ("text", 0.01)):
        for k, extra in ((1, -0.15), (5, 0.02), (10, 0.13)):
            out[f"{direction}_retrieval_recall@{k}"] = mean + shift + extra
        out[f"{direction}_retrieval_mean_recall"] = mean + shift
    return out | {"mean_recall": mean}


def heads(operator: str, seed: int, layers: int = 6, count: int = 6) -> dict:
    rng = random.Random(seed)
    rows = []
    for layer in range(layers):
        for index in range(count):
            delta = rng.gauss(-0.003, 0.004) - (0.05 if rng.random() < 0.08 else 0)
            row = {"head": f"L{layer}.H{index}", "delta": delta, "loss_delta": -0.6 * delta, "p_max_t": 0.8}
            rows.append(row)
    for name, delta, p in (("L1.H2", 0.0131, 0.004), ("L3.H5", 0.0092, 0.061)):
        next(row for row in rows if row["head"] == name).update(delta=delta, loss_delta=-0.6 * delta, p_max_t=p)
    return {"operator": operator, "identity": metrics(0.2975), "heads": rows}


def measured(what: str, mask: str | None, size: int, delta: float, ends: list[float], p: float, count: int = 1) -> dict:
    row = {"what": what, "mask": mask, "size": size, "count": count, "metrics": metrics(0.3012 + delta)}
    return row | {"delta": delta, "interval": ends, "p": p}


def finalist(mask: str, found_by: str, size: int, search: float, pick: float, chosen: bool = False) -> dict:
    return {
        "mask": mask,
        "found_by": found_by,
        "size": size,
        "search": metrics(0.2975 + search),
        "pick": metrics(0.3340 + pick),
        "pick_delta": pick,
        "pick_se": 0.0 if not size else 0.0061,
        "chosen": chosen,
    }


RESULTS = {
    "format": 1,
    "headwise_version": "0.1.0",
    "model": {
        "name": "hf:some/clip-vit",
        "family": "Hugging Face CLIP",
        "layers": [6] * 6,
        "pool_heads": 0,
        "weights_hash": "5b4f" * 8,
        "tokens": 65,
        "resolution": 64,
    },
    "data": {
        "source": "pairs.csv",
        "hash": "77aa" * 8,
        "images": 1519,
        "captions": 3296,
        "split_how": "given by the source",
        "split_hash": "1234" * 8,
        "splits": {
            "search": {"images": 534, "captions": 1145},
            "pick": {"images": 223, "captions": 486},
            "test": {"images": 762, "captions": 1665},
        },
        "skipped": 0,
    },
    "settings": {
        "operators": ["uniform", "zero"],
        "genetic": {"population": 24, "budget": 200.0},
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "chunk": 16,
        "objective": {"name": "retrieval"},
    },
    "sweep": [heads("uniform", 1), heads("zero", 2)],
    "finalists": [
        finalist("identity", "identity", 0, 0.0, 0.0),
        finalist("L1.H2=uniform, L3.H5=uniform", "ga", 2, 0.0214, 0.0175, chosen=True),
        finalist("L0.H4=uniform, L1.H2=uniform, L3.H5=uniform", "ga", 3, 0.0220, 0.0178),
        finalist("L1.H2=uniform", "best single head", 1, 0.0131, 0.0080),
    ],
    "chosen": {
        "mask": "L1.H2=uniform, L3.H5=uniform",
        "found_by": "ga",
        "size": 2,
        "values": 2,
        "heads": ["L1.H2", "L3.H5"],
        "edits": {"L1.H2": "uniform", "L3.H5": "uniform"},
    },
    "test": [
        measured("identity", "identity", 0, 0.0, [0.0, 0.0], 1.0),
        measured("random heads", None, 2, -0.0105, [-0.0150, -0.0062], 0.0002, count=20),
        measured("best single head", "L1.H2=uniform", 1, 0.0069, [-0.0004, 0.0143], 0.068),
        measured("greedy", "L1.H2=uniform, L3.H5=uniform", 2, 0.0128, [0.0031, 0.0224], 0.0093),
        measured("ga", "L0.H4=uniform, L1.H2=uniform, L3.H5=uniform", 3, 0.0121, [0.0018, 0.0225], 0.0211),
        measured("chosen", "L1.H2=uniform, L3.H5=uniform", 2, 0.0128, [0.0031, 0.0224], 0.0093),
    ],
    "test_reads": 1,
    "gap": {"search_delta": 0.0214, "test_delta": 0.0128, "gap": 0.0086},
    "mcnemar_i2t_r1": {"gained": 25, "lost": 12, "p": 0.0470},
    "ffe": {
        "sweep": 30.2,
        "greedy": 41.5,
        "ga": 200.0,
        "search": 271.7,
        "pick": 6.1,
        "budget": 280.0,
        "before_test": 277.8,
        "test": 23.4,
    },
}


def sample(**chosen_row) -> dict:
    """A copy of the results, with these fields of the chosen mask's row on the test split changed."""
    results = copy.deepcopy(RESULTS)
    results["test"][-1].update(chosen_row)
    return results


def nothing_found() -> dict:
    """The same study where identity won."""
    results = sample(**measured("chosen", "identity", 0, 0.0, [0.0, 0.0], 1.0))
    empty = {"mask": "identity", "found_by": "identity", "size": 0, "values": 0, "heads": [], "edits": {}}
    results["chosen"] = empty
    for row in results["finalists"]:
        row["chosen"] = row["mask"] == "identity"
    results["gap"] = {"search_delta": 0.0, "test_delta": 0.0, "gap": 0.0}
    results["mcnemar_i2t_r1"] = {"gained": 0, "lost": 0, "p": 1.0}
    return results
