"""Small processors of every family, built here: no hub is needed, and they are the libraries' own classes.
And the plain libraries in an interpreter of their own."""

from __future__ import annotations

import io
import string
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from headwise.demo import pairs_file

CHINESE = ["一只黑白相间的猫", "两个红苹果放在桌子上", "笑脸", "A Red Apple, on the table! 苹果"]
CHARACTERS = string.ascii_letters + string.digits + string.punctuation


@cache
def real_pairs() -> tuple[tuple[Image.Image, ...], tuple[str, ...]]:
    """Twelve packaged pictures and their captions, with one that no context can hold."""
    rows = pq.read_table(pairs_file(), columns=["image", "captions"]).slice(40, 12).to_pylist()
    images = tuple(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows)
    captions = tuple(caption for row in rows for caption in row["captions"])
    return images, (*captions, "A Red Apple, on the table!", "very " * 200 + "long")


def clip(folder: Path):
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

    pieces = [*CHARACTERS, *(f"{character}</w>" for character in CHARACTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=77
    )
    return CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer)


def siglip(folder: Path):
    import sentencepiece
    from transformers import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([caption.lower()[:80] for caption in real_pairs()[1]]),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        pad_id=-1,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    tokenizer = SiglipTokenizer(str(path), model_max_length=64, model_input_names=["input_ids"])
    return SiglipProcessor(image_processor=SiglipImageProcessor(), tokenizer=tokenizer)


def siglip2(folder: Path):
    """SigLIP 2 of fixed resolution: SigLIP's architecture and a Gemma tokenizer that does not lower-case."""
    from transformers import GemmaTokenizer, SiglipImageProcessor, SiglipProcessor

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *CHARACTERS]
    tokenizer = GemmaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        padding_side="right",
        model_input_names=["input_ids"],
    )
    return SiglipProcessor(image_processor=SiglipImageProcessor(), tokenizer=tokenizer)


def chinese_clip(folder: Path):
    from transformers import BertTokenizer, ChineseCLIPImageProcessor, ChineseCLIPProcessor

    characters = sorted({*"".join(CHINESE), *CHARACTERS} - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})
    return ChineseCLIPProcessor(image_processor=ChineseCLIPImageProcessor(), tokenizer=tokenizer)


def roberta_tokenizer():
    from transformers import XLMRobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *CHARACTERS, "<mask>"]
    return XLMRobertaTokenizer(vocab=[(piece, -float(index)) for index, piece in enumerate(pieces)])


def altclip(folder: Path):
    from transformers import AltCLIPProcessor, CLIPImageProcessor

    return AltCLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=roberta_tokenizer())


def metaclip_2(folder: Path):
    from transformers import CLIPImageProcessor, CLIPProcessor

    return CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=roberta_tokenizer())


PROCESSORS: dict[str, Callable] = {
    "CLIP": clip,
    "Siglip": siglip,
    "Siglip 2": siglip2,
    "ChineseCLIP": chinese_clip,
    "AltCLIP": altclip,
    "MetaClip2": metaclip_2,
}


def without_headwise(script: str, *arguments: object) -> None:
    """Run a script that uses the plain library; it fails if anything in it imports headwise."""
    code = textwrap.dedent(script) + "\nimport sys\nassert not any(name.startswith('headwise') for name in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
