"""What a program holds: data frames, torch data sets, arrays; and what it must not hold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.transforms.functional import normalize, to_tensor

from headwise.data.read import read
from headwise.errors import HeadwiseError

from .conftest import encoded, picture


def fails(source: object, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        read(source, **options)  # type: ignore
    return str(found.value)


def frames() -> list[Callable]:
    polars = pytest.importorskip("polars")
    return [pd.DataFrame, polars.DataFrame, pa.table]


def test_data_frames_are_read_as_tables_are(images: Path) -> None:
    names = [str(images / f"{i}.png") for i in range(3)]
    columns = {"image": names, "caption": ["a", "b", "c"], "split": ["train", "val", "test"]}
    expected = read([{key: values[i] for key, values in columns.items()} for i in range(3)])
    for make in frames():
        pairs = read(make(columns))
        assert pairs.captions == (("a",), ("b",), ("c",))
        assert pairs.splits == ("train", "val", "test")
        assert pairs.hash == expected.hash


def test_blank_cells_and_numbers_in_data_frames(images: Path) -> None:
    names = [str(images / f"{i}.png") for i in range(4)]
    columns = {"image": names, "caption_1": ["a", None, "c", None], "caption_2": [None, "b", "d", None]}
    for make in frames():
        assert read(make(columns), skip_bad=True).captions == (("a",), ("b",), ("c", "d"))
        assert "1 of 4 rows is bad" in fails(make(columns))
    for make in frames():
        pairs = read(make({"image": names, "label": [2, 10, None, 2], "split": [0, 1, 2, 0]}), skip_bad=True)
        assert pairs.class_names == ("2", "10")  # pandas makes floats of the column with a gap
        assert pairs.labels == (0, 1, 0)
        assert pairs.splits == ("0", "1", "0")


def test_data_frames_with_pictures_and_lists(images: Path) -> None:
    captions = [["a", "b"], ["c"]]
    expected = read([(encoded(i), captions[i]) for i in range(2)])
    for make in frames():
        assert read(make({"image": [encoded(i) for i in range(2)], "captions": captions})).hash == expected.hash
    held = pd.DataFrame({"image": [picture(i) for i in range(2)], "captions": [np.array(c) for c in captions]})
    assert read(held).captions == expected.captions
    assert read(held).hash == read([(picture(i), captions[i]) for i in range(2)]).hash


def test_data_frames_that_are_no_pairs(images: Path) -> None:
    polars = pytest.importorskip("polars")
    assert "no column looks like the image. Its columns are: x" in fails(pd.DataFrame({"x": ["a"]}))
    assert "no column looks like the image" in fails(polars.DataFrame({"x": ["a"]}))
    assert "'caption' appears twice" in fails(pd.DataFrame([["a", "b", "c"]], columns=["image", "caption", "caption"]))
    assert "several levels" in fails(pd.DataFrame([["a"]], columns=pd.MultiIndex.from_tuples([("image", "x")])))
    assert ".collect()" in fails(polars.DataFrame({"image": ["a"], "caption": ["b"]}).lazy())
    assert "a Series cannot be read" in fails(pd.Series(["a"]))
    assert "no rows" in fails(pd.DataFrame({"image": [], "caption": []}))
    for strange in (np.zeros((2, 3)), torch.zeros(3), 3.5, {1, 2}, object()):
        assert "cannot be read" in fails(strange)


class Items(Dataset):
    """A torch data set of what `make` gives."""

    def __init__(self, make: Callable[[int], object], count: int = 3):
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.make(index)


def test_a_torch_data_set_of_image_and_text() -> None:
    texts = ["a", ["b", "c"], ("d",)]
    expected = read([(picture(i), texts[i]) for i in range(3)])
    assert expected.captions == (("a",), ("b", "c"), ("d",))
    forms: list[Callable] = [
        lambda i: (picture(i), texts[i]),
        lambda i: [picture(i), texts[i]],
        lambda i: {"image": picture(i), "text": texts[i]},
        lambda i: (np.asarray(picture(i)), texts[i]),
        lambda i: (to_tensor(picture(i)), texts[i]),  # torchvision's ToTensor
        lambda i: (torch.from_numpy(np.asarray(picture(i)).copy()).permute(2, 0, 1), texts[i]),
    ]
    for form in forms:
        assert read(Items(form)).hash == expected.hash


def test_a_torch_data_set_of_image_and_class() -> None:
    source = Items(lambda i: (picture(i), i % 2))
    assert "no list `classes`" in fails(source)
    source.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    pairs = read(source)
    assert pairs.class_names == ("cat", "dog")
    assert pairs.labels == (0, 1, 0)


def test_torch_data_sets_that_cannot_be_used() -> None:
    random = np.random.default_rng(0)

    class Stream(IterableDataset):
        def __iter__(self):
            yield from ()

    mean = (0.5, 0.5, 0.5)
    assert "normalised" in fails(Items(lambda i: (normalize(to_tensor(picture(i)), mean, mean), "a")))
    assert "another picture each time" in fails(
        Items(lambda i: (random.integers(0, 256, (8, 8, 3), dtype=np.uint8), "a"))
    )
    assert "item 0 is a tuple; (image, text) is needed" in fails(Items(lambda i: (picture(i), 1, 2)))
    assert "item 0 cannot be had (ZeroDivisionError" in fails(Items(lambda i: 1 / 0))
    assert "no rows" in fails(Items(lambda i: (picture(i), "a"), 0))
    assert "cannot be read" in fails(Stream())
    assert fails(DataLoader(Items(lambda i: (picture(i), "a"))))


def test_names_in_memory_may_lie_anywhere_but_not_on_other_machines(images: Path) -> None:
    assert read([(images / "0.png", "a"), (str(images / "1.png"), "b")]).texts == ("a", "b")
    assert read([("0.png", "a"), ("1.png", "b")], images=str(images)).texts == ("a", "b")
    assert "remote=True" in fails([("https://example.org/0.png", "a"), (str(images / "1.png"), "b")])


@pytest.mark.parametrize("verb", ["read", "refine", "sweep", "evaluate"])
def test_unknown_keywords_are_said(images: Path, tmp_path: Path, verb: str) -> None:
    import headwise

    (images / "p.csv").write_text("image,caption\n0.png,a\n1.png,b\n")
    source = [images / "p.csv"] if verb == "read" else ["demo", images / "p.csv"]
    with pytest.raises(HeadwiseError, match=r"no option 'captoin'.*Did you mean caption\?.*Known are image, caption"):
        getattr(headwise, verb)(*source, captoin="x")


class Held(Dataset):
    """Items in a list, as a torch data set."""

    def __init__(self, items: list, **known: object):
        self.items = items
        self.__dict__.update(known)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, torch.tensor])
def test_class_numbers_of_any_kind(kind: Callable) -> None:
    data = Held([(picture(i), kind(i % 2)) for i in range(4)], classes=["cat", "dog"])
    assert read(data).labels == (0, 1, 0, 1)
    part = torch.utils.data.Subset(torch.utils.data.Subset(data, [1, 2, 3]), [0, 1])
    assert read(part).labels == (1, 0)
    assert read(part).class_names == ("cat", "dog")
    assert "no list `classes`" in fails(Held(data.items))


def test_items_with_names() -> None:
    held = Held([{"id": i, "caption": f"c{i}", "image": picture(i)} for i in range(3)])
    assert read(held).captions == (("c0",), ("c1",), ("c2",))
    assert read(held).hash == read([(picture(i), f"c{i}") for i in range(3)]).hash
    assert "item 0: no column looks like the image" in fails(Held([{"a": 1, "caption": "b"}]))


def test_tensors_of_few_bits() -> None:
    whole = [(to_tensor(picture(i)), f"c{i}") for i in range(3)]
    assert read(Held([(x.half(), text) for x, text in whole])).hash == read(Held(whole)).hash
    assert "no picture any more" in fails(Held([(x.bfloat16(), text) for x, text in whole]))


@pytest.mark.parametrize("form", [None, "numpy", "torch", "pandas"])
def test_formats_of_datasets(form: str | None) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"image": [{"bytes": encoded(i), "path": None} for i in range(3)], "caption": [["a"], ["b", "c"], ["d"]]}
    types = {"image": datasets.Image(), "caption": datasets.Sequence(datasets.Value("string"))}
    labels = {"image": columns["image"], "label": [0, 1, 0]}
    classes = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
    held = datasets.Dataset.from_dict(columns, features=datasets.Features(types)).with_format(form)
    assert read(held).captions == (("a",), ("b", "c"), ("d",))
    held = datasets.Dataset.from_dict(labels, features=datasets.Features(classes)).with_format(form)
    assert read(held).labels == (0, 1, 0)
