"""Vectors kept from one build to the next: the same bytes, whatever happens to the files."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.datastore.encoders.vectors import vectors_spec
from compactds.indexer import embedding_cache
from compactds.indexer.embedding_cache import CacheOptions, EmbeddingCache, default_cache_folder, text_keys
from compactds.indexer.embedding_segments import SUFFIX, VectorSegment, write_segment

DIMENSION = 8
SPEC = vectors_spec(DIMENSION, normalized=True)


def vectors_of(texts):
    """Return what a test's encoder gives texts: numbers drawn by the text alone."""
    rows = [np.random.default_rng([*text.encode(), 1]).normal(size=DIMENSION) for text in texts]
    return np.array(rows, np.float32).reshape(len(texts), DIMENSION)


def stored(texts, dtype="float16"):
    return vectors_of(texts).astype(dtype).astype(np.float32)


def texts_of(start, stop):
    return [f"text {number}" for number in range(start, stop)]


@dataclass
class Caches:
    """Open caches on one folder, as builds do."""

    folder: object
    limit_bytes: int = 1 << 30
    opened: list = field(default_factory=list)

    def __call__(self, key="model", dtype="float16", spec=SPEC):
        return EmbeddingCache(CacheOptions(self.folder, self.limit_bytes), spec, key, dtype)

    def keep(self, texts, **options):
        self(**options).add(text_keys(texts), vectors_of(texts))

    def found(self, texts, **options):
        """Return which texts are found, having checked that their vectors are the ones that were kept."""
        vectors, found = self(**options).find(text_keys(texts))
        np.testing.assert_array_equal(vectors[found], stored(texts, options.get("dtype", "float16"))[found])
        assert not vectors[~found].any()
        return found.tolist()

    def files(self):
        return sorted(self.folder.glob(f"vectors/*/*{SUFFIX}"))


@pytest.fixture
def caches(tmp_path):
    return Caches(tmp_path / "cache")


class TestFinding:
    def test_what_is_added_is_found_rounded_as_it_is_stored(self, caches):
        caches.keep(texts_of(0, 50))
        assert caches.found(texts_of(40, 60)) == [True] * 10 + [False] * 10

    def test_float32_keeps_every_bit(self, caches):
        caches.keep(["a", "b"], dtype="float32")
        vectors, found = caches(dtype="float32").find(text_keys(["b"]))
        assert found.all()
        assert vectors.tobytes() == vectors_of(["b"]).tobytes()

    def test_additions_are_seen_by_caches_that_are_open(self, caches):
        reader = caches()
        caches.keep(["late"])
        assert reader.find(text_keys(["late"]))[1].all()

    def test_encoders_and_number_formats_are_kept_apart(self, caches):
        caches.keep(["a"])
        assert caches.found(["a"], key="another model") == [False]
        assert caches.found(["a"], dtype="float32") == [False]

    def test_texts_differ_by_a_space_or_a_case_or_their_form(self, caches):
        caches.keep(["café"])
        assert caches.found(["café", "cafe\u0301", "Café", "café ", ""]) == [True] + [False] * 4

    def test_a_text_may_be_asked_for_and_added_more_than_once(self, caches):
        caches.keep(["a", "b", "a"])
        caches.keep(["a"])
        assert caches.found(["a", "a", "c", "b"]) == [True, True, False, True]

    def test_nothing_asked_for_and_nothing_added_is_fine(self, caches):
        caches.keep([])
        assert caches.files() == []
        assert caches.found([]) == []

    @settings(max_examples=30, deadline=None)
    @given(
        kept=st.lists(st.lists(st.text(max_size=4), max_size=8), max_size=4),
        asked=st.lists(st.text(max_size=4), max_size=12),
    )
    def test_it_answers_as_a_dictionary_does(self, tmp_path_factory, kept, asked):
        caches = Caches(tmp_path_factory.mktemp("cache"))
        for texts in kept:
            caches.keep(texts)
        known = {text for texts in kept for text in texts}
        assert caches.found(asked) == [text in known for text in asked]


class TestKeys:
    def test_keys_that_share_their_first_half_are_told_apart(self, tmp_path):
        keys = np.array([[7, 3], [7, 1], [7, 2], [9, 1]], np.uint64)
        write_segment(tmp_path, keys, np.arange(8, dtype=np.float16).reshape(4, 2))
        segment = VectorSegment.open(next(tmp_path.glob(f"*{SUFFIX}")), 2, "<f2")
        asked = np.array([[7, 2], [7, 4], [7, 1], [9, 1], [8, 1], [9, 2], [7, 3], [2**64 - 1, 0]], np.uint64)
        rows = segment.locate(asked)
        assert (rows >= 0).tolist() == [True, False, True, True, False, False, True, False]
        vectors, good = segment.read(rows[rows >= 0])
        assert good.all()
        assert vectors.tolist() == [[4, 5], [2, 3], [6, 7], [0, 1]]

    def test_the_same_text_has_the_same_key_in_every_process(self):
        program = (
            "from compactds.indexer.embedding_cache import text_keys; print(text_keys(['sky']).tolist())"
        )
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
        assert json.loads(other.stdout) == text_keys(["sky"]).tolist()


class TestDamage:
    @pytest.fixture
    def one(self, caches):
        """A cache of 20 texts in one file."""
        caches.keep(texts_of(0, 20))
        return caches

    def test_no_flipped_bit_gives_a_wrong_vector(self, one):
        (path,) = one.files()
        content = path.read_bytes()
        rng = np.random.default_rng(5)
        for place in rng.choice(len(content), 60, replace=False):
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            assert one.found(texts_of(0, 20)).count(False) <= 20  # found() compares those found
        path.write_bytes(content)
        assert all(one.found(texts_of(0, 20)))

    def test_a_damaged_vector_is_computed_again_and_then_found(self, one, caplog):
        (path,) = one.files()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        found = one.found(texts_of(0, 20))
        assert found.count(False) == 1
        assert "1 vectors are damaged" in caplog.text
        missing = [text for text, there in zip(texts_of(0, 20), found, strict=True) if not there]
        one.keep(missing)
        assert all(one.found(texts_of(0, 20)))

    @pytest.mark.parametrize("keep_bytes", [0, 5, 24, 100, -1])
    def test_a_file_cut_short_is_left_alone(self, one, caplog, keep_bytes):
        (path,) = one.files()
        path.write_bytes(path.read_bytes()[:keep_bytes])
        assert not any(one.found(texts_of(0, 20)))
        assert f"{path} is damaged" in caplog.text

    def test_a_file_of_another_shape_is_left_alone(self, one):
        write_segment(one.files()[0].parent, text_keys(["x"]), np.ones((1, DIMENSION + 1), np.float16))
        assert one.found(["x", "text 1"]) == [False, True]


class TestTrouble:
    def test_a_folder_that_is_none_costs_the_cache_and_not_the_build(self, caches, caplog):
        caches.folder.write_text("a file")
        caches.keep(["a"])
        assert caches.found(["a"]) == [False]
        assert "is not used" in caplog.text

    def test_a_disk_that_fills_up_is_told_once(self, caches, caplog, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(embedding_cache, "write_segment", fail)
        cache = caches()
        for text in ("a", "b"):
            cache.add(text_keys([text]), vectors_of([text]))
        assert caplog.text.count("No space left on device") == 1
        assert not cache.find(text_keys(["a"]))[1].any()

    def test_a_file_removed_while_it_is_open_counts_as_not_there(self, caches):
        caches.keep(["a"])
        caches.keep(["b"])
        cache = caches()
        assert cache.find(text_keys(["a", "b"]))[1].all()
        caches.files()[0].unlink()
        assert cache.find(text_keys(["a", "b"]))[1].sum() == 1

    def test_a_file_removed_between_looking_and_reading_counts_as_not_there(self, caches, monkeypatch):
        caches.keep(["a"])
        monkeypatch.setattr(VectorSegment, "read", lambda segment, _: segment.path.with_name("gone").open())
        assert caches.found(["a"]) == [False]


class TestSize:
    def test_what_was_used_longest_ago_is_dropped(self, caches):
        for number in range(4):
            caches.keep(texts_of(100 * number, 100 * number + 100), key=f"model {number % 2}")
        for age, path in enumerate(sorted(caches.files(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (1000 + age, 1000 + age))
        used = [caches.found(texts_of(0, 1))]  # of no model: touches nothing
        assert used == [[False]]
        assert caches.found(texts_of(0, 1), key="model 0") == [True]  # the first is the last used now
        caches.limit_bytes = 3 * caches.files()[0].stat().st_size
        cache = caches("model 1")
        cache.add(text_keys(["new"]), vectors_of(["new"]))
        assert cache.dropped_bytes == 2 * caches.files()[0].stat().st_size or cache.dropped_bytes > 0
        assert caches.found(["text 0"], key="model 0") == [True]
        assert caches.found(["text 100"], key="model 1") == [False]
        assert caches.found(["text 300", "new"], key="model 1") == [True, True]
        assert sum(path.stat().st_size for path in caches.files()) <= caches.limit_bytes

    def test_small_files_are_merged_and_nothing_is_lost(self, caches, monkeypatch):
        monkeypatch.setattr(embedding_cache, "SMALL_SEGMENTS", 5)
        for number in range(30):
            caches.keep(texts_of(10 * number, 10 * number + 12))
        assert len(caches.files()) <= 6
        assert all(caches.found(texts_of(0, 302)))

    def test_merged_files_stay_small_enough_to_be_merged_in_memory(self, caches, monkeypatch):
        monkeypatch.setattr(embedding_cache, "SMALL_SEGMENTS", 5)
        monkeypatch.setattr(embedding_cache, "MERGED_BYTES", 3000)
        for number in range(12):
            caches.keep(texts_of(10 * number, 10 * number + 10))
        assert max(path.stat().st_size for path in caches.files()) <= 3000
        assert all(caches.found(texts_of(0, 120)))

    def test_merging_leaves_damaged_vectors_behind(self, caches, monkeypatch):
        for number in range(3):
            caches.keep([f"text {number}"])
        path = caches.files()[1]
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        monkeypatch.setattr(embedding_cache, "SMALL_SEGMENTS", 1)
        caches.keep(["text 3"])
        assert len(caches.files()) == 1
        assert caches.found(texts_of(0, 4)).count(True) == 3

    def test_files_dropped_while_they_are_merged_are_passed_over(self, caches, monkeypatch):
        for number in range(3):
            caches.keep([f"text {number}"])
        monkeypatch.setattr(embedding_cache, "SMALL_SEGMENTS", 1)
        monkeypatch.setattr(VectorSegment, "read_all", lambda segment: segment.path.with_name("gone").open())
        caches.keep(["text 3"])
        assert caches.files() == []

    def test_only_one_process_merges(self, caches, monkeypatch):
        import fcntl

        monkeypatch.setattr(embedding_cache, "SMALL_SEGMENTS", 1)
        caches.keep(["a"])
        with (caches.files()[0].parent / ".merging").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            caches.keep(["b"])
            assert len(caches.files()) == 2
        caches.keep(["c"])
        assert len(caches.files()) == 1
        assert caches.found(["a", "b", "c"]) == [True] * 3

    def test_what_killed_builds_left_half_written_is_removed_once_it_is_old(self, caches):
        caches.keep(["a"])
        old, new = (caches.files()[0].with_name(name) for name in (".1.tmp", ".2.tmp"))
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (1000, 1000))
        caches.keep(["b"])
        assert (old.exists(), new.exists()) == (False, True)
        assert caches.found(["a", "b"]) == [True, True]


class TestEndpoints:
    def test_vectors_of_another_model_behind_one_address_are_thrown_away(self, caches):
        first = replace(SPEC, probe=(1.0, 0.0))
        caches.keep(["a"], spec=first)
        assert caches.found(["a"], spec=replace(first, probe=(0.9999, 0.0005))) == [True]
        assert caches.found(["a"], spec=replace(first, probe=(0.6, 0.8))) == [False]
        assert caches.found(["a"], spec=first) == [False]

    def test_without_a_readable_record_of_the_model_nothing_is_believed(self, caches):
        spec = replace(SPEC, probe=(1.0, 0.0))
        for content in ("", "[1]", '{"probe": "no"}'):
            caches.keep(["a"], spec=spec)
            assert caches.found(["a"], spec=spec) == [True]
            (caches.files()[0].parent / "about.json").write_text(content)
            assert caches.found(["a"], spec=spec) == [False]

    def test_the_record_tells_people_whose_vectors_they_are(self, caches):
        caches.keep(["a"], spec=replace(SPEC, model="minilm"))
        about = json.loads((caches.files()[0].parent / "about.json").read_text())
        assert about == {"model": "minilm", "dtype": "<f2", "dimension": DIMENSION, "probe": None}


class TestSharing:
    def test_nobody_else_may_look(self, caches):
        caches.keep(["a"])
        assert (caches.folder / "vectors").stat().st_mode & 0o777 == 0o700

    def test_threads_and_processes_add_at_once_and_lose_nothing(self, caches, monkeypatch):
        monkeypatch.setattr(embedding_cache, "SMALL_SEGMENTS", 3)

        def work(first):
            cache = caches()
            for start in range(first, first + 60, 10):
                texts = texts_of(start, start + 10)
                cache.add(text_keys(texts), vectors_of(texts))

        process = multiprocessing.get_context("fork").Process
        workers = [process(target=work, args=(100 * number,)) for number in range(2)]
        workers += [threading.Thread(target=work, args=(100 * number,)) for number in range(2, 4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert all(
            caches.found([text for first in range(0, 400, 100) for text in texts_of(first, first + 60)])
        )

    def test_the_folder_is_the_users_cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_cache_folder() == tmp_path / "compactds"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert default_cache_folder() == tmp_path / "home" / ".cache" / "compactds"
