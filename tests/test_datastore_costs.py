"""What searching costs is measured when a store is built, and never comes out as nothing."""

import numpy as np
import pytest

from compactds.datastore.ann.choose import choose_index
from compactds.datastore.costs import LEAST_CODE_US, measure_costs
from compactds.datastore.manifest import SearchCosts
from compactds.datastore.segment import open_index
from compactds.datastore.vectors import ExactVectors
from compactds.datastore.writer import write_index


def stored(folder, rows: int) -> ExactVectors:
    array = np.random.default_rng(0).standard_normal((rows, 16)).astype(np.float16)
    array.tofile(folder / "vectors")
    return ExactVectors(folder / "vectors", rows=rows, dimension=16, dtype="float16")


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("rows", [1, 50, 3_000])
def test_every_step_has_a_cost(tmp_path, kind, rows):
    vectors = stored(tmp_path, rows)
    plan = choose_index(rows, 16, memory_bytes=1 << 30, kind=kind)
    index = open_index(tmp_path, write_index(tmp_path, plan, vectors), dimension=16)
    costs = measure_costs(index, vectors, vectors)
    assert costs.row_us > 0
    assert costs.code_us >= LEAST_CODE_US
    assert 0 <= costs.query_us <= costs.filtered_us


def test_noise_is_not_taken_for_scans_that_cost_nothing(tmp_path):
    class Even:
        exact, filters, efforts = False, True, (1, 2, 4)

        def worth(self, effort):
            return float(effort)

        def search(self, queries, count, *, effort, allowed=None):
            return None

    assert measure_costs(Even(), stored(tmp_path, 200), stored(tmp_path, 200)).code_us >= LEAST_CODE_US


def test_a_segment_without_measured_costs_has_those_of_a_common_server():
    assert SearchCosts().code_us > 0
