"""Batches shared out over the cores: in order, whatever fails, whoever else is at it."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import faiss
import pytest

from compactds.datastore.parallel import MOST_QUERIES_A_TASK, _Workers, share_out


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


def squares(part: slice) -> list[int]:
    return [number * number for number in range(part.start, part.stop)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 1_000])
def test_results_come_in_order(count):
    assert share_out(squares, count) == squares(slice(0, count))


def test_slices_are_no_larger_than_a_task_and_leave_no_core_out():
    sizes = share_out(lambda part: [part.stop - part.start], 40)
    assert sizes == [11, 10, 10, 9]  # the caller, who begins first, may take one more
    assert share_out(lambda part: [part.stop - part.start], 2) == [1, 1]
    assert max(share_out(lambda part: [part.stop - part.start], 10_000)) == MOST_QUERIES_A_TASK


def test_each_thread_works_alone_and_the_callers_setting_is_put_back():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        assert set(share_out(lambda part: [faiss.omp_get_max_threads()], 100)) == {1}
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_all_cores_take_part():
    meeting = threading.Barrier(4, timeout=30)

    def meet(part: slice) -> list[int]:
        meeting.wait()  # passes only once four threads are here
        return [part.start]

    assert share_out(meet, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("failing", [0, 1, 7, 15])
def test_what_a_slice_raises_reaches_the_caller_once_nobody_works_on_the_batch(failing):
    under_way = []

    def fail(part: slice) -> list[int]:
        under_way.append(part)
        try:
            if part.start == failing * MOST_QUERIES_A_TASK:
                raise ValueError(f"slice {failing}")
            return squares(part)
        finally:
            under_way.remove(part)

    for _ in range(20):
        with pytest.raises(ValueError, match=f"^slice {failing}$"):
            share_out(fail, 16 * MOST_QUERIES_A_TASK)
        assert not under_way
    assert share_out(squares, 500) == squares(slice(0, 500))


def test_a_caller_does_not_wait_for_workers_who_are_busy():
    busy, release = threading.Semaphore(0), threading.Event()

    def hold(part: slice) -> list[int]:
        busy.release()
        assert release.wait(60)
        return [part.start]

    holder = threading.Thread(target=share_out, args=(hold, 4))
    holder.start()
    try:
        for _ in range(4):
            assert busy.acquire(timeout=60)
        assert share_out(squares, 1_000) == squares(slice(0, 1_000))
    finally:
        release.set()
        holder.join()


def test_batches_within_batches_come_to_an_end():
    found = share_out(lambda part: [share_out(squares, 9) for _ in range(part.start, part.stop)], 40)
    assert found == [squares(slice(0, 9))] * 40


def test_many_callers_at_once_get_their_own_results():
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda count: share_out(squares, count), range(300)))
    assert found == [squares(slice(0, count)) for count in range(300)]


def test_a_forked_process_has_workers_of_its_own():
    share_out(squares, 100)
    child = os.fork()
    if not child:
        ended = 1
        try:
            meeting = threading.Barrier(4, timeout=30)
            ended = int(share_out(lambda part: [meeting.wait() >= 0], 4) != [True] * 4)
        finally:
            os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_workers_keep_nothing_of_a_batch_that_ended():
    class Query:
        def __call__(self, part: slice) -> list[int]:
            return squares(part)

    task = Query()
    kept = weakref.ref(task)
    share_out(task, 1_000)
    del task
    for _ in range(200):  # workers that came too late let go of it when they find nothing left
        gc.collect()
        if kept() is None:
            return
        threading.Event().wait(0.01)
    pytest.fail("a worker keeps the last batch")


def test_batches_that_ended_are_not_kept_by_workers_who_are_busy():
    class Query:
        def __call__(self, part: slice) -> list[int]:
            return squares(part)

    busy, release = threading.Semaphore(0), threading.Event()

    def hold(part: slice) -> list[int]:
        busy.release()
        assert release.wait(60)
        return []

    holder = threading.Thread(target=share_out, args=(hold, 4))
    holder.start()
    try:
        for _ in range(4):
            assert busy.acquire(timeout=60)
        task = Query()
        kept = weakref.ref(task)
        assert share_out(task, 1_000) == squares(slice(0, 1_000))
        del task
        gc.collect()
        assert kept() is None
    finally:
        release.set()
        holder.join()


def test_an_error_that_is_false_is_raised_like_any_other():
    class EmptyError(Exception):
        def __len__(self) -> int:
            return 0

    def fail(part: slice) -> list[int]:
        raise EmptyError

    with pytest.raises(EmptyError):
        share_out(fail, 1_000)


def test_first_callers_at_once_start_no_more_workers_than_there_are_cores():
    found = _Workers()
    with ThreadPoolExecutor(16) as pool:
        before = threading.active_count()
        list(pool.map(lambda _: found(3), range(200)))
        assert threading.active_count() <= before + 16 + 3
    names = [thread.name for thread in threading.enumerate()]
    assert found._count == 3
    assert names.count("compactds-search-0") <= 2  # one of each
