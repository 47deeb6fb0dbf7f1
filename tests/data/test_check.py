"""`data check` counts what is there and writes nothing."""

from pathlib import Path

from headwise.data.check import check

from .conftest import encoded, picture


def test_a_full_report(images: Path, cache: Path) -> None:
    (images / "copy.png").write_bytes(encoded(0))
    picture(1, (96, 80)).save(images / "bigger.png")
    (images / "broken.png").write_bytes(encoded(1)[:60])
    rows = ["0.png,a,train,x", "copy.png,b,test,x", "1.png,c,train,y", "1.png,d,train,y", "bigger.png,a,train,y"]
    rows += ["broken.png,e,test,y", "2.png,,test,y"]
    (images / "p.csv").write_text("image,caption,split,group\n" + "\n".join(rows) + "\n")
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*")}
    report = check(images / "p.csv")
    assert (report.images, report.captions) == (4, 5)
    assert report.captions_per_image == {1: 3, 2: 1}
    assert report.splits == {"train": 3, "test": 1}
    assert report.groups == {"x": 2, "y": 2}
    assert [len(found) for found in report.duplicates] == [2]
    assert len(report.near_duplicates) == 1
    assert "line 6" in report.near_duplicates[0][1]
    assert report.across_splits == 1
    assert report.repeated_captions == 1
    assert [str(bad).split(": ")[0].rsplit(" ", 1)[1] for bad in report.bad] == ["8", "7"]
    assert not report.ok
    assert report.samples[0] == ("0.png", ("a",))
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*")} == before
    assert not list(cache.iterdir())


def test_classes_are_counted(images: Path) -> None:
    (images / "p.csv").write_text("image,label\n0.png,cat\n1.png,dog\n2.png,cat\n")
    report = check(images / "p.csv")
    assert report.classes == {"cat": 2, "dog": 1}
    assert report.samples[1] == ("1.png", ("dog",))
    assert report.ok
