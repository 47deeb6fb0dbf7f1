"""The example with a real index: a folder of pictures, two models, a question on the command line and on the page."""

from __future__ import annotations

import importlib.util
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "examples" / "search" / "search.py"


@pytest.fixture(scope="module")
def search():
    pytest.importorskip("usearch")
    spec = importlib.util.spec_from_file_location("search_example", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["search_example"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_indexed_asked_and_served(search, tmp_path, capsys):
    import csv

    from conftest import write_pairs

    import headwise

    write_pairs(tmp_path, 40)
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    headwise.merge("demo", "L0.H1=zero, L5.H2=zero", tmp_path / "refined")
    folder = str(tmp_path / "index")
    models = ["--original", "demo", "--refined", str(tmp_path / "refined")]
    search.main(["index", str(tmp_path / "images"), *models, "--out", folder])
    said = capsys.readouterr()
    assert said.out.startswith("40 pictures")
    assert "broken.png" in said.err

    with (tmp_path / "pairs.csv").open(newline="", encoding="utf-8") as file:
        text = next(csv.DictReader(file))["caption"]
    search.main(["ask", folder, text])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["original", "refined"]
    searcher = search.Searcher.open(Path(folder))
    found = searcher.ask(text, 5)["original"]
    model = headwise.load("demo")  # the index finds what a product over all pictures finds
    with torch.inference_mode():
        images = torch.stack([model.preprocess(search.Image.open(path).convert("RGB")) for path in searcher.pictures])
        cosines = torch.from_numpy(search.unit(model.tower.encode(images)) @ search.unit(model.encode_texts([text]))[0])
    assert [number for number, _ in found] == cosines.argsort(descending=True)[:5].tolist()
    assert found[0][1] == pytest.approx(float(cosines.max()), abs=1e-3)

    server = search.serve(searcher, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        body = urllib.request.urlopen(f"{address}/?q=%3Cscript%3E+cat").read().decode()
        assert body.count("<img") == 24
        assert "<script>" not in body
        assert urllib.request.urlopen(f"{address}/picture/0").read() == searcher.pictures[0].read_bytes()
        for bad in ("/picture/40", "/picture/../pictures.json", "/picture/-1"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(address + bad)
            refused.value.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
