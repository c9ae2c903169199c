"""Memory is measured as processes hold it, and predicted before anything is built."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest

from compactds.configs.sizes import parse_bytes
from compactds.datastore import memory
from compactds.datastore.ann.choose import BudgetError, choose_index
from compactds.datastore.ann.list_map import REMEMBERED_FILTERS, ListMap
from compactds.datastore.attributes import AttributeColumns, arrow_schema, full_schema
from compactds.datastore.bitmaps import Bitmap
from compactds.datastore.budget import (
    calibrating_bytes,
    indexing_bytes,
    indexing_seconds,
    predict_memory,
)
from compactds.datastore.filter_memory import PARAMETERS_BYTES, filters_at_most, list_map_bytes
from compactds.datastore.memory import (
    MemoryWatch,
    can_measure,
    held_bytes,
    library_bytes,
    peak_resident_bytes,
    private_bytes,
)

linux = pytest.mark.skipif(not can_measure(), reason="only Linux says what a process holds")
MEGABYTE = 1_000_000


@linux
class TestMeasuring:
    def test_the_peak_is_at_least_what_is_held_and_leaves_out_the_program_that_started_this_one(self):
        held = np.ones(40 * MEGABYTE, np.uint8)  # a process started from here would inherit it
        peak = peak_resident_bytes()
        assert peak >= private_bytes() > held.nbytes
        code = "from compactds.datastore.memory import peak_resident_bytes; print(peak_resident_bytes())"
        one = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert 1 * MEGABYTE < int(one.stdout) < peak - 30 * MEGABYTE

    def test_the_peak_is_told_where_there_is_no_proc(self, monkeypatch):
        monkeypatch.setattr(memory, "Path", lambda _: Path("/nowhere"))
        assert peak_resident_bytes() > MEGABYTE

    def test_what_is_allocated_is_held(self):
        code = (  # in a process of its own: what other tests left behind may be given back meanwhile
            "import numpy; from compactds.datastore.memory import private_bytes; before = private_bytes(); "
            "held = numpy.ones(50_000_000, 'u1'); print(private_bytes() - before)"
        )
        one = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert 45 * MEGABYTE < int(one.stdout) < 60 * MEGABYTE

    def test_libraries_count_towards_what_is_held(self):
        assert held_bytes() > private_bytes()
        assert library_bytes() > MEGABYTE

    def test_mapped_files_do_not_count(self, tmp_path):
        (tmp_path / "file").write_bytes(bytes(40 * MEGABYTE))
        before = held_bytes()
        mapped = np.memmap(tmp_path / "file", np.uint8, "r")
        assert mapped.sum() == 0
        assert held_bytes() - before < 10 * MEGABYTE

    def test_a_process_that_is_gone_holds_nothing(self):
        done = subprocess.Popen([sys.executable, "-c", "pass"])
        done.wait()
        assert private_bytes(done.pid) == 0
        assert library_bytes(done.pid) == 0

    def test_the_most_is_noted_stage_by_stage(self):
        with MemoryWatch() as watch:
            watch.stage("large")
            array = np.ones(60 * MEGABYTE, np.uint8)
            wait_for(lambda: "large" in watch.peaks and watch.peaks["large"] > private_bytes() - MEGABYTE)
            del array
            watch.stage("small")
            wait_for(lambda: "small" in watch.peaks)
        assert watch.peaks["large"] - watch.peaks["small"] > 40 * MEGABYTE
        assert watch.peak_bytes == watch.peaks["large"]

    def test_processes_it_starts_count(self, monkeypatch):
        monkeypatch.setattr(memory, "CHILDREN_EVERY_S", 0.0)
        program = "import numpy, sys; a = numpy.ones(60_000_000, 'u1'); print(flush=True); sys.stdin.read()"
        before = held_bytes()
        with (
            MemoryWatch() as watch,
            subprocess.Popen(
                [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as child,
        ):
            child.stdout.readline()
            wait_for(lambda: max(watch.peaks.values(), default=0) > private_bytes() + 55 * MEGABYTE)
            child.stdin.close()
        assert watch.peak_bytes > before + 50 * MEGABYTE

    def test_the_watch_ends_with_an_error_too(self):
        watch = MemoryWatch()
        with pytest.raises(ValueError, match="stop"), watch:
            raise ValueError("stop")
        assert not watch._thread.is_alive()


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_where_nothing_can_be_measured_the_watch_says_nothing(monkeypatch):
    monkeypatch.setattr(memory, "can_measure", lambda: False)
    with MemoryWatch() as watch:
        pass
    assert watch.peak_bytes == 0


class TestPrediction:
    @pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
    def test_serving_is_the_program_and_the_index(self, kind):
        plan = choose_index(100_000, 384, memory_bytes=1 << 40, kind=kind)
        found = predict_memory(plan, 100_000, 384, building_base_bytes=1, serving_base_bytes=100)
        assert 0 <= found.serving_bytes - plan.ram_bytes - 100 < 20 * MEGABYTE
        assert found.building_bytes == sum(found.parts.values()) > plan.ram_bytes

    def test_encoders_and_workers_add_to_it(self):
        plan = choose_index(100_000, 384, memory_bytes=1 << 40)

        def predict(**more):
            return predict_memory(plan, 100_000, 384, building_base_bytes=0, serving_base_bytes=0, **more)

        assert predict(encoder_bytes=7).serving_bytes == predict().serving_bytes  # in its base already
        assert predict(encoder_bytes=7).building_bytes - predict().building_bytes == 7
        more, one = predict(workers=4), predict(workers=1)
        assert more.building_bytes > one.building_bytes + 300 * MEGABYTE
        assert more.serving_bytes == one.serving_bytes

    def test_ten_million_vectors_are_trained_in_bounded_memory(self):
        plan = choose_index(10**7, 384, memory_bytes=1 << 30)
        assert indexing_bytes(plan, 10**7, 384) < 2_500 * MEGABYTE
        assert calibrating_bytes(plan, 10**7) < 700 * MEGABYTE

    def test_it_takes_longer_for_more(self):
        for kind in ("flat", "hnsw", "ivf"):
            few, many = (
                indexing_seconds(choose_index(rows, 64, memory_bytes=1 << 40, kind=kind), rows, 64)
                for rows in (10_000, 1_000_000)
            )
            assert many > few, kind

    @pytest.mark.parametrize(
        ("rows", "seconds"),
        [(10_000, 6), (30_000, 9), (100_000, 19), (1_000_000, 103), (10_000_000, 1_154)],
    )
    def test_about_as_long_as_was_measured(self, rows, seconds):
        reading = rows / 25_000
        plan = choose_index(rows, 384, memory_bytes=1 << 30, kind="ivf")
        assert 0.7 * seconds < reading + indexing_seconds(plan, rows, 384) < 1.3 * seconds

    @pytest.mark.parametrize("rows", [1, 3_000])
    def test_the_most_that_filters_hold_is_what_they_say(self, rows, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = full_schema({})
        table = pa.table({name: ["x"] * rows for name in schema}, schema=arrow_schema(schema))
        pq.write_table(table, tmp_path / "a.parquet", write_page_checksum=True)
        columns = AttributeColumns(tmp_path / "a.parquet", schema)
        limits = filters_at_most(rows, 384 * 4 * rows, 0)
        assert columns.filter.limit_bytes == limits.columns_bytes + limits.results_bytes == limits.total_bytes
        columns.close()

    def test_filters_are_counted_in_what_serving_takes_at_most(self):
        plan = choose_index(10**6, 384, memory_bytes=1 << 40)
        found = predict_memory(plan, 10**6, 384, building_base_bytes=0, serving_base_bytes=7)
        assert found.filters == filters_at_most(10**6, plan.ram_bytes, plan.lists)
        assert found.filters.columns_bytes >= 64 * 10**6
        assert found.filters.list_map_bytes >= 2 * 10**6
        assert found.filters.list_copies_bytes >= 16 << 20
        assert found.serving_at_most_bytes == found.serving_bytes + found.filters.total_bytes

    def test_an_index_without_lists_has_no_map_of_them(self):
        plan = choose_index(10**5, 384, memory_bytes=1 << 40, kind="flat")
        found = predict_memory(plan, 10**5, 384, building_base_bytes=0, serving_base_bytes=0)
        assert found.filters.list_map_bytes == found.filters.list_copies_bytes == 0

    def test_the_map_of_lists_takes_no_more_than_was_predicted(self):
        from types import SimpleNamespace

        lists, rows = 4, 5_000
        held = [np.arange(first, rows, lists) for first in range(lists)]
        quantizer = faiss.IndexFlatIP(6)
        quantizer.add(np.zeros((lists, 6), np.float32))
        ivf = SimpleNamespace(
            quantizer=quantizer,
            nlist=lists,
            ntotal=rows,
            get_list_size=lambda number: len(held[number]),
            invlists=SimpleNamespace(get_ids=lambda number: faiss.swig_ptr(held[number])),
        )
        known = ListMap(ivf)
        filters = [Bitmap.from_rows(np.array([row]), rows) for row in range(REMEMBERED_FILTERS)]
        counted = sum(known.counts(rows).allowed.nbytes for rows in filters)
        kept = REMEMBERED_FILTERS * PARAMETERS_BYTES
        assert known.ram_bytes + counted + kept == list_map_bytes(rows, lists)
        assert list_map_bytes(rows, 1 << 17) > list_map_bytes(rows, 1 << 16) + 2 * rows


class TestLeast:
    @pytest.mark.parametrize("kind", ["auto", "flat", "hnsw", "ivf"])
    @pytest.mark.parametrize("rows", [5, 9_000, 200_000])
    def test_the_least_that_is_named_does(self, kind, rows):
        with pytest.raises(BudgetError) as caught:
            choose_index(rows, 384, memory_bytes=1, kind=kind)
        least = parse_bytes(re.search(r"at least ([\d.]+\w+)", caught.value.remedy)[1])
        assert choose_index(rows, 384, memory_bytes=least, kind=kind).ram_bytes <= least
        with pytest.raises(BudgetError):  # it is rounded up by less than a tenth
            choose_index(rows, 384, memory_bytes=int(0.9 * least), kind=kind)
