"""The card of a shipped folder: what it is, how to use it in a few lines, where it comes from, its limits.

In: a door, a model's name, a mask, what was checked. Out: Markdown with a YAML header. Each snippet of it is run in a
test.
"""

from __future__ import annotations

from collections.abc import Mapping

from headwise.edits.card import OWN_CARD, card_header, listed, origin, plain_card
from headwise.edits.mask import Mask
from headwise.plain import code, markdown, yaml

WHAT = {
    "onnx": "ONNX files of a refined CLIP",
    "openvino": "OpenVINO files of a refined CLIP",
    "torch": "A pruned image tower as a torch program",
    "pruned": "A pruned CLIP",
    "hf": "A refined CLIP for transformers",
    "open_clip": "A refined CLIP for open_clip",
    "sentence-transformers": "A refined CLIP for sentence-transformers",
    "timm": "A refined image encoder for timm",
    "safetensors-delta": "The changed weights of a refined CLIP",
}
LIBRARY = {
    "onnx": "onnx",
    "openvino": "openvino",
    "torch": "pytorch",
    "pruned": "transformers",
    "safetensors-delta": "safetensors",
}
SNIPPETS = {
    "onnx": """import onnxruntime

image = onnxruntime.InferenceSession("image.onnx")
embeddings = image.run(None, {"images": pixels})[0]  # pixels (B, 3, R, R) float32, preprocessed as onnx.json says
""",
    "openvino": """import openvino  # it reports its imports to its makers; `opt_in_out --opt_out` ends that

image = openvino.Core().compile_model("image.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
embeddings = image({"images": pixels})[0]  # pixels (B, 3, R, R) float32, preprocessed as onnx.json says
""",
    "torch": """import torch

image = torch.export.load("image.pt2").module()
embeddings = image(pixels)  # pixels (B, 3, R, R) float32, preprocessed as the base model does
""",
    "pruned": """from transformers import AutoModel, AutoProcessor

# trust_remote_code runs modeling_headwise.py of this folder: read it first (it is short), or use the ONNX files
model = AutoModel.from_pretrained("path/to/this/folder", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("path/to/this/folder")
""",
    "hf": """from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("path/to/this/folder")
processor = AutoProcessor.from_pretrained("path/to/this/folder")
""",
    "open_clip": """import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:path/to/this/folder")
tokenizer = open_clip.get_tokenizer("local-dir:path/to/this/folder")
""",
    "sentence-transformers": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
embeddings = model.encode(images)  # PIL images, or texts
""",
    "timm": """import timm

model = timm.create_model("local-dir:path/to/this/folder", pretrained=True).eval()
""",
    "safetensors-delta": """from safetensors.torch import load_file


def load_delta(model, path):
    \"\"\"Put the changed tensors into the base model; `model` is its library's own object.\"\"\"
    delta, state = load_file(path), model.state_dict()
    for name, tensor in delta.items():
        if name not in state or state[name].shape != tensor.shape:
            raise ValueError(f"{name} is not a tensor of this model: is it the base model of the card?")
    model.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in delta.items()}, strict=False)
    return model


model = load_delta(model, "path/to/this/folder/delta.safetensors")
""",
}


def export_card(door: str, base: str, mask: Mask, facts: Mapping[str, object], *, licence: str = "") -> str:
    """The README of a shipped folder.

    Arguments:
        door: a key of `SNIPPETS`.
        base: the base model's name.
        mask: what was done to it.
        facts: what was checked, name → value, a line each.
        licence: an identifier of the hub; empty: the base model's, which is not known here.
    """
    own = [f"license: {yaml(licence)}"] if licence else []
    library = [f"library_name: {LIBRARY[door]}"] if door in LIBRARY else []
    lines = card_header(base, merged=True).splitlines()
    lines = [line for line in lines if not (library and line.startswith("library_name"))]
    header = "\n".join(["---", *library, *own, *lines[1:]])
    effect = (
        "No head is edited."
        if mask.is_identity
        else f"Edited heads ({mask.size} of {mask.grid.size}): {code(str(mask))}. Layers and heads count from 0."
    )
    rows = [*listed(facts), *origin(mask)]
    licence_line = (
        f"Licence: {markdown(licence)}." if licence else "The licence of the base model applies; see its own card."
    )
    return "\n".join(
        [
            header,
            "",
            f"# {WHAT[door]}: {markdown(base)}",
            "",
            effect,
            "",
            "```python",
            SNIPPETS[door].rstrip(),
            "```",
            "",
            "## Facts",
            "",
            f"- base model: {markdown(base)}",
            *rows,
            "",
            "## Limits",
            "",
            "The heads were chosen for the data above. On other data the change may be nothing or a loss: measure it with "
            f"`headwise evaluate`. {licence_line}",
            "",
            "`SHA256SUMS` lists every file; `headwise verify` checks the folder against its edits.",
            "",
        ]
    )


OPENED = {  # what begins a family's name → who opens a merged folder of it
    "Hugging Face CLIP": ("hf", "sentence-transformers"),
    "Hugging Face": ("hf",),
    "open_clip": ("open_clip",),
    "timm": ("timm",),
}


def loading(family: str, *, texts: bool = True) -> str:
    """How a merged model's folder is loaded, a block of code for each library that opens it; Markdown.

    Arguments:
        family: of its tower, as `Tower.family`.
        texts: the model has a text tower, without which sentence-transformers does not open it.
    """
    doors = next((doors for start, doors in OPENED.items() if family.startswith(start)), ())
    doors = doors if texts else doors[:1]
    names = {"hf": "transformers"}
    return "\n\n".join(f"With {names.get(door, door)}:\n\n```python\n{SNIPPETS[door].rstrip()}\n```" for door in doors)


def merged_card(mask: Mask, family: str, *, texts: bool = True) -> str:
    """The README of a folder that `merge` wrote.

    Arguments:
        mask: what was folded.
        family, texts: as for `loading`.
    """
    return "\n".join([plain_card(mask, merged=True).rstrip(), "", loading(family, texts=texts), ""])


__all__ = ["OWN_CARD", "SNIPPETS", "export_card", "loading", "merged_card"]
