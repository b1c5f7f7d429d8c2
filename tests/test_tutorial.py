"""docs/tutorial.ipynb runs from its first cell to its last, and what it trains has learnt something."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
PARTS = ("pixel_alone", "segment")
TRAINING = "--epochs 2 --crops 240"  # a number of steps, so that a slow computer trains as far


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def test_the_stored_notebook_is_small_whole_and_without_errors_or_paths_of_one_machine():
    assert NOTEBOOK.stat().st_size < 300_000
    text = NOTEBOOK.read_text("utf-8")
    notebook = json.loads(text)
    ran = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ran == list(range(1, len(ran) + 1)), "run from the first cell to the last"
    assert [output for output in outputs(notebook) if output["output_type"] == "error"] == []
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs(notebook)) >= 4
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_the_notebook_runs_and_its_network_finds_vessels(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    for path in ROOT.iterdir():  # it writes beside itself, so it runs in a copy
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            (tmp_path / path.name).symlink_to(path)
    docs = tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setenv("TUTORIAL_TRAINING", TRAINING)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(docs)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    assert [output for output in outputs(notebook) if output["output_type"] == "error"] == []
    said = "".join(output.get("text", "") for output in outputs(notebook))
    mean = re.search(r"^mean +([\d.]+)", said, re.M)
    assert mean, said
    assert 0.7 < float(mean[1]) < 1, "all vessel would be 0.32"
    assert (docs / "tutorial" / "results" / "index.html").is_file()
    pixels, segments = (float(re.search(rf"^each_{how} .*accuracy ([\d.]+)", said, re.M)[1]) for how in PARTS)
    assert pixels + 0.1 < segments < 1, "one kind for each segment is right more often than its pixels"
    assert re.search(r"^truth .*avr 0\.[5-9]", said, re.M) and "6 arteries: the six widest" in said
