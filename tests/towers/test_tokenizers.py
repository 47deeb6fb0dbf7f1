"""A tokenizer that is not whole or not the model's own is refused; where captions are cut is said."""

import json
import string

import golden
import pytest
from cases import hf_model
from folders import CLIP_TEXT, SMALL, clip_folder, family_folder, sized
from processors import PROCESSORS, clip
from test_text_and_pixels import TEXT

from headwise.errors import HeadwiseError
from headwise.towers import load, wrap
from headwise.towers.texts import cut

KEPT = ("config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json")


@pytest.mark.parametrize("family", list(PROCESSORS))
def test_missing_tokenizer_files_are_refused_in_every_family(family, tmp_path):
    folder = family_folder(family, TEXT[family], tmp_path)
    load(str(folder))
    for file in [path for path in folder.iterdir() if path.name not in (*KEPT, "tokenizer_config.json")]:
        file.unlink()
    with pytest.raises(HeadwiseError, match=r"tokenizer"):
        load(str(folder))
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(HeadwiseError, match=r"tokenizer"):
        load(str(folder))


def test_an_image_processor_alone_is_not_enough_for_a_model_with_texts(tmp_path):
    folder = clip_folder(tmp_path)
    for file in [path for path in folder.iterdir() if path.name not in ("config.json", "model.safetensors")]:
        file.unlink()
    sized(clip(tmp_path)).image_processor.save_pretrained(folder)
    with pytest.raises(HeadwiseError, match="tokenizer"):
        load(str(folder))


def bpe(words: list[str], merges: bool) -> object:
    """A CLIP tokenizer that knows whole words, with or without the merges that make them."""
    import string

    from transformers import CLIPTokenizer

    pieces = [*string.printable[:94], *(f"{c}</w>" for c in string.printable[:94])]
    rules = []
    for word in words:
        letters = [*word[:-1], word[-1] + "</w>"]
        while len(letters) > 1:
            rules.append((letters[0], letters[1]))
            letters[:2] = [letters[0] + letters[1]]
            pieces.append(letters[0])
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(rules)) if merges else [], model_max_length=24)


@pytest.mark.parametrize("merges", [True, False])
def test_missing_merges_are_refused(merges, tmp_path):
    words = [a + b + c + d for a in "bdfk" for b in "aio" for c in "lmr" for d in "et"]
    tokenizer = bpe(words, merges)
    text = {
        **CLIP_TEXT,
        "vocab_size": len(tokenizer),
        "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1,
    }
    processor = sized(clip(tmp_path))
    processor.tokenizer = tokenizer
    module = golden.randomise(hf_model("CLIP", text, SMALL))
    if merges:
        assert wrap(module, processor).encode_texts(["bale"]).shape == (1, 512)
    else:
        with pytest.raises(HeadwiseError, match="takes 72 apart, so its merges are missing"):
            wrap(module, processor)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    processor = sized(clip(tmp_path))
    with pytest.raises(HeadwiseError, match=r"gives the id 1\d\d, the model has embeddings of 150"):
        wrap(hf_model("CLIP", {**CLIP_TEXT, "vocab_size": 150, "eos_token_id": 149}, SMALL), processor)
    with pytest.raises(HeadwiseError, match="knows 190 tokens, the model has embeddings of 49,408"):
        wrap(hf_model("CLIP", {**CLIP_TEXT, "vocab_size": 49408}, SMALL), processor)
    with pytest.raises(HeadwiseError, match="reads a text at its end token, 55"):
        wrap(hf_model("CLIP", {**CLIP_TEXT, "eos_token_id": 55}, SMALL), processor)


def test_a_sentence_transformer_without_its_tokenizer_is_refused(tmp_path):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(clip_folder(tmp_path / "clip")), device="cpu").save(str(tmp_path / "own"))
    model = load(str(tmp_path / "own"))
    assert model.encode_texts(["a cat"]).shape == (1, 512)
    for file in (tmp_path / "own").rglob("tokenizer.json"):
        file.unlink()
    with pytest.raises(HeadwiseError, match="tokenizer"):
        load(str(tmp_path / "own"))


def test_open_clips_tokenizer_has_to_fit_the_table(tmp_path):
    import open_clip
    from folders import OPEN_CLIP

    config = {**OPEN_CLIP, "text_cfg": {**OPEN_CLIP["text_cfg"], "vocab_size": 1000}}
    module = golden.randomise(open_clip.model.CLIP(**json.loads(json.dumps(config))))
    preprocess = open_clip.image_transform(32, False)
    with pytest.raises(HeadwiseError, match=r"gives the id 49,407, the model has embeddings of 1,000"):
        wrap(module, (preprocess, open_clip.get_tokenizer("ViT-B-32")))


# ---- where captions are cut


def test_a_limit_below_the_models_own_context_is_not_taken(tmp_path, caplog):
    folder = clip_folder(tmp_path, tokens=6)
    texts = ["a red bus in the rain", "a red bus in the snow", "a red bus in the dark"]
    model = load(str(folder))
    assert model.reading.context == 24
    assert "at most 6 tokens, the model reads 24" in caplog.text
    assert len({tuple(row) for row in model.encode_texts(texts).tolist()}) == 3
    as_it_says = load(str(folder), context_length=6)
    assert len({tuple(row) for row in as_it_says.encode_texts(texts).tolist()}) == 1


@pytest.mark.parametrize("family", list(PROCESSORS))
def test_how_many_captions_are_cut_and_become_equal(family, tmp_path):
    model = load(str(family_folder(family, TEXT[family], tmp_path)))
    context = model.reading.context
    long = ["a " * context + ending for ending in ("cat", "dog", "red bus")]
    found = cut(model.reading, ["a cat", "a dog", *long, long[0]])
    assert (found.tokens, found.texts, found.equal) == (context, 3, 3)
    assert f"3 captions are longer than the {context} tokens" in found.sentence
    assert cut(model.reading, ["a cat", "a dog"]).texts == 0


def test_the_command_line_says_what_was_cut(tmp_path, run):
    import csv

    from conftest import write_pairs

    folder, pairs = clip_folder(tmp_path / "own"), write_pairs(tmp_path / "data", 8)
    with pairs.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    for i, row in enumerate(rows[1:4]):
        row[1] = "red " * 30 + f"end {i}"
    with pairs.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    code, out, err = run("evaluate", folder, pairs)
    assert code == 0, err
    said = " ".join((out + err).split())
    assert "longer than the 24 tokens that the model reads and cut there; 3 of them became equal to another" in said


def test_saving_writes_the_tokenizer_as_it_came(tmp_path):
    folder = clip_folder(tmp_path / "own")
    model = load(str(folder))
    model.save(tmp_path / "before")
    model.encode_texts(["a cat", "very " * 100])
    cut(model.reading, ["a cat", "very " * 100])
    model.save(tmp_path / "after")
    assert (tmp_path / "before" / "tokenizer.json").read_bytes() == (tmp_path / "after" / "tokenizer.json").read_bytes()
    assert (tmp_path / "after" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_model_whose_end_token_is_not_in_its_table_is_said(tmp_path, caplog):
    wrap(hf_model("CLIP", {"vocab_size": 190, "max_position_embeddings": 24}, SMALL), sized(clip(tmp_path)))
    assert "49407, which is not among the 190 of the model" in caplog.text


@pytest.mark.parametrize(("kept", "right"), [(slice(None), True), (slice(0, -300), False), (slice(1, None), False)])
def test_a_chinese_vocabulary_that_lost_a_few_lines_is_refused(kept, right, tmp_path):
    """4,000 tokens, of which the last 300 (7.5 %) are cut off, or the first one, [PAD], so that all ids are shifted."""
    from transformers import BertTokenizerFast, ChineseCLIPImageProcessor, ChineseCLIPProcessor

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *string.digits]
    words += [f"##{c}" for c in string.ascii_lowercase + string.digits] + [chr(0x4E00 + n) for n in range(4000)]
    words = words[:4000]
    (tmp_path / "vocab.txt").write_text("\n".join(words[kept]))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    text = TEXT["ChineseCLIP"] | {"vocab_size": 4000}
    module = golden.randomise(hf_model("ChineseCLIP", text, SMALL))
    processor = sized(ChineseCLIPProcessor(image_processor=ChineseCLIPImageProcessor(), tokenizer=tokenizer))
    if right:
        assert wrap(module, processor).encode_texts(["一只猫", "a cat"]).shape[0] == 2
    else:
        with pytest.raises(HeadwiseError, match=r"the tokenizer (knows|pads)"):
            wrap(module, processor)
