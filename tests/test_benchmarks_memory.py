"""The memory benchmark grows vectors that stay near real ones, and marks what is further off than a tenth."""

import json

import numpy as np
import pytest
from benchmarks import memory

ROW = {
    "rows": 20_000,
    "workers": 2,
    "index": "ivf",
    "planned": {"building_bytes": 400_000_000, "serving_bytes": 130_000_000},
    "measured": {
        "building_bytes": 410_000_000,
        "serving_bytes": 160_000_000,
        "serving_base_bytes": 120_000_000,
    },
    "off": {"building_bytes": -0.024, "serving_bytes": -0.19},
    "growth_off": -0.5,
}


@pytest.fixture
def base(tmp_path):
    rows = np.random.default_rng(0).standard_normal((300, 8))
    np.save(tmp_path / "base.npy", (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
    return tmp_path / "base.npy"


def test_grown_rows_have_length_one_and_a_neighbour_among_the_real_ones(base, tmp_path):
    memory.write_corpus([base], 1_000, tmp_path)
    vectors = np.load(tmp_path / "vectors.npy").astype(np.float32)
    real = np.load(base).astype(np.float32)
    assert np.array_equal(vectors[:300], real)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    assert np.median((vectors[300:] @ real.T).max(axis=1)) > 0.85
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(row) for row in range(1_000)]


def test_fewer_rows_are_the_first_ones(base, tmp_path):
    memory.write_corpus([base], 50, tmp_path)
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), np.load(base)[:50])


def test_what_is_too_far_off_is_marked():
    cells = [cell.strip() for cell in memory.table_row(ROW).strip("|").split("|")]
    assert len(cells) == len(memory.HEADS)
    assert cells[:6] == ["20,000", "ivf", "2", "400", "410", "-2.4%"]
    assert cells[8] == "-19.0% (more than a tenth)"


@pytest.mark.parametrize(("off", "ends"), [(0.05, False), (-0.2, True)])
def test_it_ends_with_1_if_a_prediction_is_wrong(base, tmp_path, monkeypatch, capsys, off, ends):
    found = {**ROW, "off": {"building_bytes": off, "serving_bytes": 0.0}}
    monkeypatch.setattr(memory, "measure", lambda *arguments: found)
    arguments = ["--vectors", str(base), "--rows", "10", "--folder", str(tmp_path / "out")]
    arguments += ["--json", str(tmp_path / "found.json")]
    if ends:
        with pytest.raises(SystemExit):
            memory.main(arguments)
    else:
        memory.main(arguments)
    assert json.loads((tmp_path / "found.json").read_text()) == [found]
    assert "| 20,000 | ivf | 2 |" in capsys.readouterr().out
