"""The cold benchmark: every way reads the same rows from disk, and ours is compared with the best."""

import errno
import json
import os

import numpy as np
import pytest
from benchmarks import cold
from benchmarks.disk import files, reads

DIMENSION = 96
RESULT = {
    "dimension": 96,
    "threads": 2,
    "candidates": 1_000,
    "file_bytes": 2_000_000_000,
    "rounds": 3,
    "most_resident_pages": 0,
    "best_raw": "quick",
    "times_best_raw": 2.5,
    "ways": {
        name: {
            "median_ms": median,
            "p95_ms": median,
            "megabytes_per_second": 1.0,
            "times_best_raw": median / 2,
            "read_share": share,
        }
        for name, median, share in (("quick", 2.0, 1.5), (cold.OWN, 5.0, 1.2), (cold.WARM, 1.0, 0.0))
    },
    "left_out": {"O_DIRECT": "Invalid argument"},
}


@pytest.fixture
def vectors(tmp_path):
    """A file of 4 MiB on a disk."""
    path = tmp_path / "96.f16"
    files.write_vectors(path, 4 << 20, DIMENSION)
    if files.drop(path):
        pytest.skip("this file system keeps files in memory")
    return path


def test_a_file_is_larger_than_asked_finite_and_kept(tmp_path):
    path = tmp_path / "rows"
    rows = files.write_vectors(path, 100_000, DIMENSION)
    assert rows * 2 * DIMENSION == path.stat().st_size > 100_000
    content = np.fromfile(path, np.float16)
    assert np.isfinite(content).all()
    assert len(np.unique(content)) > 1_000
    before = path.stat()
    assert files.write_vectors(path, 100_000, DIMENSION) == rows
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert files.write_vectors(path, 200_000, DIMENSION) > rows


def test_pages_are_counted_and_dropped(vectors):
    assert files.resident_pages(vectors) == 0
    size = len(vectors.read_bytes())
    assert files.resident_pages(vectors) == -(-size // 4096)
    assert files.drop(vectors) == 0


def test_every_way_reads_the_rows(vectors):
    row_bytes = 2 * DIMENSION
    rows = np.random.default_rng(2).permutation(vectors.stat().st_size // row_bytes)[:50]
    rows[0] = vectors.stat().st_size // row_bytes - 1  # the last one, where no whole block is left
    rows = np.unique(rows)[::-1].copy()
    wanted = np.fromfile(vectors, np.uint8).reshape(-1, row_bytes)[np.sort(rows)]
    found = reads.Reads(vectors, row_bytes, 60, pools=(2, 3))
    try:
        assert len(found.ways) + 3 * len(found.left_out) >= 8
        for name, way in found.ways.items():
            found._buffer[:] = 0
            way(rows)
            assert np.array_equal(found.found(), wanted), name
    finally:
        found.close()


def test_what_a_machine_cannot_do_is_left_out_and_said(vectors, monkeypatch):
    monkeypatch.setattr(reads.platform, "machine", lambda: "abacus")
    found = reads.Reads(vectors, 192, 10, pools=(2,))
    found.close()
    assert "abacus" in found.left_out["O_DIRECT io_submit"] or "O_DIRECT" in found.left_out
    monkeypatch.undo()

    opened = os.open

    def refuse(path, flags, *rest):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no such flag here")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    found = reads.Reads(vectors, 192, 10, pools=(2,))
    found.close()
    assert "no such flag here" in found.left_out["O_DIRECT"]
    assert not any("O_DIRECT" in name for name in found.ways)


def test_a_read_that_fails_is_told(vectors):
    try:
        queue = reads.Queue(4)
    except OSError as error:
        pytest.skip(str(error))
    buffer = np.zeros(512, np.uint8)
    one = np.array([0])
    with pytest.raises(OSError, match=r"a read failed|Bad file descriptor"):
        queue.read(9_999, one, one + 512, one + buffer.ctypes.data)
    queue.close()


def test_it_reads_cold_and_warm_and_compares(vectors, capsys, monkeypatch):
    monkeypatch.setattr(cold, "MOST", 1e9)
    out = vectors.parent / "found.json"
    arguments = ["--dimensions", str(DIMENSION), "--candidates", "200", "--threads", "1", "2", "--pools", "2"]
    arguments += ["--rounds", "2", "--megabytes", "4", "--folder", str(vectors.parent), "--json", str(out)]
    cold.main(arguments)
    single, double = json.loads(out.read_text())
    assert (single["threads"], double["threads"]) == (1, 2)
    for result in (single, double):
        assert {cold.OWN, cold.AFTER_WARM, cold.WARM, "pread, 2 threads"} <= set(result["ways"])
        assert result["best_raw"] not in (cold.OWN, cold.AFTER_WARM, cold.WARM)
        ways = result["ways"]
        assert ways[result["best_raw"]]["times_best_raw"] == 1
        seconds = result["seconds"]
        raw = [name for name in seconds if not name.startswith(cold.OWN)]
        ratios = {name: cold.paired(seconds[cold.OWN], seconds[name]) for name in raw}
        assert result["times_best_raw"] == max(ratios.values())
        assert all(way["read_share"] >= 1 for name, way in ways.items() if name != cold.WARM)
        assert ways[cold.WARM]["read_share"] == 0
    assert "| 2 × 200 rows of 96 dimensions |" in capsys.readouterr().out


def test_a_file_that_stays_in_memory_is_refused(vectors, monkeypatch):
    monkeypatch.setattr(cold, "drop", lambda path: len(path.read_bytes()))
    bench = cold.Bench(vectors, vectors.stat().st_size // 192, DIMENSION, 1, 10)
    with pytest.raises(SystemExit, match="stay in memory: name a --folder on a disk"):
        bench.raw("none", lambda rows: None)


def test_more_candidates_than_rows_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cold.main(["--dimensions", "4096", "--megabytes", "1", "--folder", str(tmp_path)])
    assert "--candidates 1000 are more than the 129 rows" in capsys.readouterr().err


def test_the_table_is_sorted_and_marks_what_takes_too_long():
    lines = cold.table(RESULT).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[0] for row in cells[2:]] == [cold.WARM, "quick", cold.OWN]
    assert cells[-1][-1] == "2.50 (more than 2)"
    assert "Left out: O_DIRECT: Invalid argument." in lines[-1]
    assert "the disk gave 1.2 times" in lines[-2]


def test_times_are_compared_within_rounds_so_that_a_busy_disk_hits_both():
    assert cold.paired([2.0, 40.0, 200.0], [1.0, 10.0, 200.0]) == 2
    with pytest.raises(ValueError, match="shorter"):
        cold.paired([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("times", "ends"), [(1.9, False), (2.5, True)])
def test_it_ends_with_1_if_a_read_takes_too_long(tmp_path, monkeypatch, times, ends):
    monkeypatch.setattr(cold, "measure", lambda bench, options: {**RESULT, "times_best_raw": times})
    arguments = ["--dimensions", "96", "--candidates", "5", "--megabytes", "1", "--folder", str(tmp_path)]
    if ends:
        with pytest.raises(SystemExit, match="1"):
            cold.main(arguments)
    else:
        cold.main(arguments)
