"""Attributes of drawn pictures whose values are known."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from headwise.data.pairs import ImageRef, Pairs, hash_bytes
from headwise.explanation.attributes import MEASURED, measure, own_columns, picture_attributes

SIZE = 200


def drawn(*shapes, size=(SIZE, SIZE), back="white") -> Image.Image:
    picture = Image.new("RGB", size, back)
    pen = ImageDraw.Draw(picture)
    for kind, box, options in shapes:
        getattr(pen, kind)(box, **options)
    return picture


def attributes(picture: Image.Image) -> dict[str, float]:
    return dict(zip(MEASURED, picture_attributes(picture).tolist(), strict=True))


DISC = drawn(("ellipse", (60, 60, 140, 140), {"fill": "black"}))
RING = drawn(("ellipse", (60, 60, 140, 140), {"outline": "black", "width": 12}))
TWO = drawn(("rectangle", (10, 20, 50, 60), {"fill": "black"}), ("rectangle", (120, 120, 180, 180), {"fill": "red"}))
BAR = drawn(("rectangle", (20, 90, 180, 110), {"fill": "blue"}))


def test_ink_extent_and_centre_of_a_disc():
    found = attributes(DISC)
    assert found["ink"] == pytest.approx(np.pi * 0.2**2, abs=0.01)
    assert found["width"] == pytest.approx(0.4, abs=0.03)
    assert found["height"] == pytest.approx(0.4, abs=0.03)
    assert abs(found["centre x"]) < 0.03
    assert abs(found["centre y"]) < 0.03
    assert found["elongation"] < 0.05
    assert found["brightness"] == pytest.approx(1 - np.pi * 0.2**2, abs=0.01)


def test_parts_and_holes():
    counts = {name: (attributes(picture)["parts"], attributes(picture)["holes"]) for name, picture in
              (("disc", DISC), ("ring", RING), ("two", TWO))}  # fmt: skip
    assert counts == {"disc": (1, 0), "ring": (1, 1), "two": (2, 0)}
    assert (attributes(drawn())["parts"], attributes(drawn())["ink"]) == (0, 0)


def test_where_a_thing_is():
    found = attributes(drawn(("rectangle", (150, 10, 190, 50), {"fill": "black"})))
    assert found["centre x"] == pytest.approx(0.7, abs=0.05)
    assert found["centre y"] == pytest.approx(-0.7, abs=0.05)


def test_orientation_and_elongation():
    lying, standing = attributes(BAR), attributes(BAR.rotate(90))
    assert lying["horizontal"] > 0.7
    assert standing["horizontal"] < -0.7
    assert lying["elongation"] == pytest.approx(standing["elongation"], abs=0.05)
    assert abs(attributes(BAR.rotate(45, fillcolor="white"))["horizontal"]) < 0.15


def test_symmetry_is_of_the_mirror_image():
    wedge = drawn(("polygon", [(40, 160), (160, 160), (160, 60)], {"fill": "black"}))
    assert attributes(DISC)["symmetry"] > 0.98
    assert attributes(wedge)["symmetry"] < 0.7
    left_only = attributes(drawn(("rectangle", (10, 80, 60, 120), {"fill": "black"})))
    assert left_only["symmetry"] < 0.2
    assert left_only["symmetry up-down"] > 0.95


def test_colour_contrast_edges_and_blur():
    assert attributes(DISC)["colourfulness"] < 0.01
    assert attributes(TWO)["colourfulness"] > 0.05
    grey = drawn(("ellipse", (60, 60, 140, 140), {"fill": (200, 200, 200)}))
    assert attributes(grey)["contrast"] < attributes(DISC)["contrast"]
    lines = drawn(*[("line", (x, 10, x, 190), {"fill": "black", "width": 3}) for x in range(20, 190, 15)])
    assert attributes(lines)["edge density"] > 3 * attributes(DISC)["edge density"]
    soft = DISC.filter(ImageFilter.GaussianBlur(6))
    assert attributes(soft)["sharpness"] < attributes(DISC)["sharpness"] - 1


def test_size_of_the_picture_does_not_matter_but_its_aspect_does():
    wide = drawn(("rectangle", (100, 50, 300, 150), {"fill": "black"}), size=(400, 200))
    assert attributes(wide)["aspect"] == pytest.approx(np.log(2), abs=0.01)
    small, large = attributes(DISC.resize((100, 100))), attributes(DISC.resize((600, 600)))
    for name in ("ink", "width", "centre x", "parts"):
        assert small[name] == pytest.approx(large[name], abs=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 2), (3000, 2)])
def test_odd_sizes_give_finite_numbers(size):
    assert np.isfinite(picture_attributes(Image.new("RGB", size, "white"))).all()
    assert np.isfinite(picture_attributes(Image.effect_noise(size, 80).convert("RGB"))).all()


def ref(data: bytes) -> ImageRef:
    return ImageRef("somewhere", lambda: data, hash_bytes(data))


def test_pictures_that_cannot_be_read_have_no_values():
    buffer = io.BytesIO()
    DISC.save(buffer, "PNG")
    good = ref(buffer.getvalue())

    def gone() -> bytes:
        raise FileNotFoundError(2, "No such file")

    broken = ref(buffer.getvalue()[:200])
    values, unreadable = measure([good, ImageRef("gone.png", gone, "x"), broken])
    assert unreadable == (1, 2)
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[1:]).all()


def test_columns_of_the_user_are_ones_and_zeros():
    n = 40
    pairs = Pairs(
        "p", (ref(b"x"),) * n, ((),) * n, tuple(map(str, range(n))), groups=tuple("ab"[i % 2] for i in range(n)),
        labels=tuple(int(i >= 30) + int(i == 39) for i in range(n)), class_names=("cat", "dog", "emu"),
    )  # fmt: skip
    names, columns = own_columns(pairs)
    assert set(names) == {"group: a", "group: b", "class: cat", "class: dog"}  # one emu is too few
    assert columns[:, names.index("group: a")].tolist() == [float(i % 2 == 0) for i in range(n)]
    assert columns[:, names.index("class: dog")].sum() == 9
    assert own_columns(Pairs("p", (ref(b"x"),), ((),), ("0",)))[1].shape == (1, 0)
