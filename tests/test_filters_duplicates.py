"""Copies of documents are found whoever signs them, compared exactly, and the first one stays."""

import itertools
import random
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactds.filters.corpus import duplicates, duplicates_search
from compactds.filters.corpus.duplicates import (
    PERMUTATIONS,
    DuplicatesError,
    DuplicateSettings,
    banding,
    is_signed,
    jaccard,
    shingles,
    sign_shard,
    signature,
    signatures,
    write_signatures,
)
from compactds.filters.corpus.duplicates_pairs import Duplicate, read_duplicates
from compactds.filters.corpus.duplicates_search import SignedShard, find_duplicates

VOCABULARY = [f"w{number}" for number in range(3000)]


def plain_shingles(text, length=5):
    words = re.findall(r"[^\W_]+", text.lower())
    if len(words) < length:
        return {tuple(words)} if words else set()
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def plain_jaccard(one, other):
    return len(one & other) / len(one | other) if one or other else 0.0


def plain_duplicates(texts, threshold=0.8, length=5):
    """Drop in order what is as similar as the threshold to an earlier text that is kept."""
    sets = [plain_shingles(text, length) for text in texts]
    kept, dropped = [], {}
    for number, own in enumerate(sets):
        for earlier in kept:
            similarity = plain_jaccard(own, sets[earlier])
            if similarity >= threshold:
                dropped[number] = (earlier, similarity)
                break
        else:
            kept.append(number)
    return dropped


def prose(draw, words):
    return " ".join(draw.choices(VOCABULARY, k=words))


def edited(draw, text, edits):
    words = text.split()
    for place in draw.sample(range(len(words)), edits):
        words[place] = draw.choice(VOCABULARY)
    return " ".join(words)


def planted_texts(seed=1, originals=40):
    """Return texts and copies of them that are reworded, cut, joined and reformatted, in random order."""
    draw = random.Random(seed)
    texts = [prose(draw, draw.randint(3, 300)) for _ in range(originals)]
    for text in list(texts):
        if len(text.split()) > 20:
            texts.append(edited(draw, text, max(1, len(text.split()) // draw.choice([30, 60, 120]))))
            texts.append(" ".join(text.split()[: int(len(text.split()) * draw.choice([0.7, 0.85, 0.95]))]))
            texts.append(f"{text} {draw.choice(texts)[:40]}")
        texts.append(text.upper().replace(" ", ", "))
    draw.shuffle(texts)
    return texts


def searched(folder, texts, settings=None, shards=3, **given):
    """Sign texts in shards and return what is found, by ordinal."""
    settings = settings or DuplicateSettings()
    folder.mkdir(exist_ok=True)
    numbered = list(enumerate(texts))
    size = max(1, -(-len(texts) // shards))
    made = []
    for start in range(0, len(texts), size):
        path = folder / f"signed-{start}.parquet"
        part = numbered[start : start + size]
        sign_shard(path, part, settings)
        made.append(SignedShard(path, lambda part=part: part))
    path = find_duplicates(made, folder / "search", settings, **given)
    return {found.ordinal: found for found in read_duplicates(path)}


def test_planted_copies_are_found_as_by_comparing_all_with_all(tmp_path):
    texts = planted_texts()
    found = searched(tmp_path, texts)
    assert {n: (d.kept, d.similarity) for n, d in found.items()} == plain_duplicates(texts)
    assert {d.kind for d in found.values()} == {"exact", "near"}


@pytest.mark.parametrize(("threshold", "words"), [(0.3, 2), (0.5, 3), (0.9, 5), (1.0, 1)])
def test_nothing_is_found_that_is_less_similar(tmp_path, threshold, words):
    texts = planted_texts(seed=2, originals=20)
    found = searched(tmp_path, texts, DuplicateSettings(threshold, words))
    sets = [plain_shingles(text, words) for text in texts]
    for number, duplicate in found.items():
        assert duplicate.kept < number
        assert duplicate.kept not in found
        assert duplicate.similarity == plain_jaccard(sets[number], sets[duplicate.kept]) >= threshold
    assert len(found) >= 0.98 * len(plain_duplicates(texts, threshold, words))


@pytest.mark.parametrize("shards", [1, 2, 7, 1000])
def test_shards_do_not_change_what_is_found(tmp_path, shards):
    texts = planted_texts(seed=3, originals=15)
    assert searched(tmp_path / "a", texts, shards=shards, threads=2) == searched(tmp_path / "b", texts)


def test_the_first_of_all_copies_stays(tmp_path):
    draw = random.Random(4)
    text = prose(draw, 100)
    copies = [text, text.title(), edited(draw, text, 1), text, edited(draw, text, 1)]
    found = searched(tmp_path, [prose(draw, 50), *copies])
    assert sorted(found) == [2, 3, 4, 5]
    assert {duplicate.kept for duplicate in found.values()} == {1}
    assert [found[n].kind for n in sorted(found)] == ["exact", "near", "exact", "near"]


def test_a_copy_of_a_dropped_copy_is_kept_unless_it_is_like_one_that_is_kept(tmp_path):
    draw = random.Random(5)
    words = prose(draw, 200).split()
    first, second, third = words[:100], words[10:110], words[20:120]
    texts = [" ".join(part) for part in (first, second, third)]
    sets = [plain_shingles(text) for text in texts]
    assert plain_jaccard(sets[0], sets[1]) == plain_jaccard(sets[1], sets[2]) > 0.8
    assert plain_jaccard(sets[0], sets[2]) < 0.8
    assert list(searched(tmp_path, texts)) == [1]


def test_an_exact_copy_of_a_near_duplicate_names_the_copy_that_is_kept(tmp_path):
    draw = random.Random(6)
    text = prose(draw, 100)
    near = edited(draw, text, 1)
    found = searched(tmp_path, [text, near, near.upper()])
    assert found[2] == Duplicate(2, 0, found[1].similarity, "near")


def test_without_near_duplicates_only_the_same_words_count(tmp_path):
    draw = random.Random(7)
    text = prose(draw, 100)
    texts = [text, edited(draw, text, 1), f"{text}!", " ".join(reversed(text.split()))]
    assert searched(tmp_path, texts, DuplicateSettings(near=False)) == {2: Duplicate(2, 0, 1.0, "exact")}


def test_short_texts_are_one_run(tmp_path):
    texts = ["one two", "One, two!", "one two three", "two one", "three", "three", "a b c d e", "a b c d f"]
    assert {n: d.kept for n, d in searched(tmp_path, texts).items()} == {1: 0, 5: 4}


def test_texts_without_words_are_no_copies_of_each_other(tmp_path):
    assert searched(tmp_path, ["", "!?", "", "—", "\x00", "\ud800"]) == {}
    assert searched(tmp_path / "none", []) == {}


def test_the_same_shingles_in_another_order_are_near(tmp_path):
    texts = ["a b c d e " * 10, "b c d e a " * 10]
    assert searched(tmp_path, texts) == {1: Duplicate(1, 0, 1.0, "near")}


def test_a_bucket_of_very_many_is_compared_with_its_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates_search, "MOST_IN_BUCKET", 3)
    draw = random.Random(8)
    text = prose(draw, 300)
    texts = [f"{text} {number} {draw.choice(VOCABULARY)}" for number in range(200)]
    found = searched(tmp_path, texts)
    assert sorted(found) == list(range(1, 200))
    assert {duplicate.kept for duplicate in found.values()} == {0}


def test_little_memory_is_enough(tmp_path):
    texts = planted_texts(seed=9, originals=30)
    assert searched(tmp_path / "a", texts, memory="32MB") == searched(tmp_path / "b", texts)


def test_paths_may_hold_any_characters(tmp_path):
    texts = planted_texts(seed=10, originals=5)
    assert searched(tmp_path / "it's [1] *?", texts) == searched(tmp_path / "plain", texts)


class StoppedError(Exception):
    pass


STEPS = ["check_ordinals", "find_pairs", "gather_shingles", "compare", "select"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("call", [1, 3])
def test_an_interrupted_search_goes_on_where_it_was(tmp_path, monkeypatch, step, call):
    texts = planted_texts(seed=11, originals=10)
    expected = searched(tmp_path / "whole", texts)
    calls = itertools.count(1)
    genuine = getattr(duplicates_search._Search, step)

    def interrupted(self, *arguments, **given):
        if next(calls) == call:
            raise StoppedError
        return genuine(self, *arguments, **given)

    with monkeypatch.context() as patched:
        patched.setattr(duplicates_search._Search, step, interrupted)
        if call == 1 or step == "select":
            with pytest.raises(StoppedError):
                searched(tmp_path / "cut", texts)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("pairs_*.parquet")}
    rewritten = []
    select = duplicates_search._Search.select
    monkeypatch.setattr(
        duplicates_search._Search,
        "select",
        lambda self, query, path, **given: (
            rewritten.append(path) if not path.exists() else None,
            select(self, query, path, **given),
        ),
    )
    assert searched(tmp_path / "cut", texts) == expected
    assert not set(done) & set(rewritten)


def test_a_finished_search_leaves_its_result_alone_and_is_not_repeated(tmp_path, monkeypatch):
    texts = planted_texts(seed=12, originals=10)
    expected = searched(tmp_path, texts)
    assert sorted(path.name for path in (tmp_path / "search").iterdir()) == [
        "duplicates.parquet",
        "inputs.json",
    ]
    monkeypatch.setattr(duplicates_search, "_search", None)
    assert searched(tmp_path, texts) == expected


def test_other_signatures_or_settings_start_the_search_over(tmp_path):
    texts = planted_texts(seed=13, originals=10)
    first = searched(tmp_path, texts)
    assert searched(tmp_path, texts, DuplicateSettings(near=False)) != first
    assert searched(tmp_path, texts) == first


def test_a_signed_shard_is_not_signed_again(tmp_path):
    path = tmp_path / "s.parquet"
    sign_shard(path, [(0, "some words")], DuplicateSettings())

    def unread():
        raise AssertionError
        yield

    sign_shard(path, unread(), DuplicateSettings())
    assert is_signed(path, DuplicateSettings())
    assert not is_signed(path, DuplicateSettings(0.9))
    path.write_bytes(b"PAR1 broken")
    assert not is_signed(path, DuplicateSettings())
    sign_shard(path, [(0, "some words")], DuplicateSettings())
    assert pq.read_table(path).column("ordinal").to_pylist() == [0]


def test_a_shard_appears_only_when_all_of_it_is_signed(tmp_path):
    def documents():
        yield 0, "some words"
        raise StoppedError

    with pytest.raises(StoppedError):
        sign_shard(tmp_path / "s.parquet", documents(), DuplicateSettings())
    assert not (tmp_path / "s.parquet").exists()


def signed_here(texts):
    return signatures(texts, DuplicateSettings())


def test_signatures_are_the_same_in_every_process_and_batch():
    texts = [*planted_texts(seed=14, originals=8), "", "one", "?!"]
    expected = [signature(text, DuplicateSettings()) for text in texts]
    assert signatures(texts, DuplicateSettings()) == expected
    assert signatures(texts[5:9], DuplicateSettings()) == expected[5:9]
    assert signatures([], DuplicateSettings()) == []
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(signed_here, texts).result(120) == expected


def test_a_long_text_is_signed_in_pieces_that_do_not_show():
    import rensa

    runs = np.random.default_rng(1).integers(0, 1 << 63, 40_000, dtype=np.uint64)
    whole = rensa.RMinHash.digest_matrix_from_token_hash_sets([runs.tolist()], PERMUTATIONS, 42).to_rows()[0]
    for number, part in enumerate(duplicates._sketches([runs[:20_000], runs, runs[20_000:]])):
        assert (part.tolist() == whole) == (number == 1)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_signing_starts_no_threads_so_that_a_process_may_be_forked_afterwards():
    code = (
        "from pathlib import Path\n"
        "from compactds.filters.corpus.duplicates import *\n"
        "before = len(list(Path('/proc/self/task').iterdir()))\n"
        "texts = [f'{n} ' + ' '.join(map(str, range(n % 40))) for n in range(5000)]\n"
        "texts.append(' '.join(map(str, range(200_000))))\n"
        "signatures(texts, DuplicateSettings())\n"
        "print(len(list(Path('/proc/self/task').iterdir())) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_signature_is_an_identity_and_a_key_for_each_band():
    bands, rows = banding(0.8)
    assert (bands, rows) == (21, 6)
    signed = signature("Some words, and more of them.", DuplicateSettings())
    assert len(signed) == 16 + 8 * bands
    assert signed == signature("some WORDS and more of them", DuplicateSettings())
    assert (
        signature("Some words.", DuplicateSettings(near=False))
        == signature("Some words", DuplicateSettings())[:16]
    )
    assert signature("?!", DuplicateSettings()) == b""


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_make_candidates_of_pairs_at_the_threshold(threshold):
    bands, rows = banding(threshold)
    assert bands * rows <= PERMUTATIONS
    assert 1 - (1 - threshold**rows) ** bands >= 0.99
    assert threshold == 1 or 1 - (1 - threshold ** (rows + 1)) ** (PERMUTATIONS // (rows + 1)) < 0.99


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.85])
def test_pairs_agree_on_bands_as_often_as_minhash_promises(similarity):
    """The share of pairs of known similarity that have a key in common is within four deviations."""
    draw, count, size = random.Random(15), 400, 80
    shared = round(2 * size * similarity / (1 + similarity))
    hits = 0
    for _ in range(count):
        words = draw.sample(VOCABULARY, 2 * size - shared)
        keys = [
            np.frombuffer(signature(" ".join(part), DuplicateSettings(0.8, 1))[16:], "<u8")
            for part in (words[:size], words[size - shared :])
        ]
        hits += bool((keys[0] == keys[1]).any())
    bands, rows = banding(0.8)
    promised = 1 - (1 - (shared / (2 * size - shared)) ** rows) ** bands
    assert abs(hits / count - promised) < 4 * (promised * (1 - promised) / count) ** 0.5 + 0.01


@settings(max_examples=100, deadline=None)
@given(*[st.lists(st.sampled_from("abcd"), max_size=30).map(" ".join)] * 2, st.integers(1, 6))
def test_similarity_is_that_of_the_sets(one, other, words):
    expected = plain_jaccard(plain_shingles(one, words), plain_shingles(other, words))
    assert jaccard(shingles(one, words), shingles(other, words)) == expected


def test_ordinals_given_twice_are_refused(tmp_path):
    made = []
    for name in ("a", "b"):
        sign_shard(tmp_path / name, [(7, f"text {name}")], DuplicateSettings())
        made.append(SignedShard(tmp_path / name, list))
    with pytest.raises(DuplicatesError, match=r"two documents have the ordinal 7\. Number"):
        find_duplicates(made, tmp_path / "search", DuplicateSettings())


def test_shards_signed_otherwise_are_refused(tmp_path):
    sign_shard(tmp_path / "s", [(0, "a")], DuplicateSettings(0.9))
    for path in (tmp_path / "s", tmp_path / "missing"):
        with pytest.raises(DuplicatesError, match="does not hold signatures made with these settings"):
            find_duplicates([SignedShard(path, list)], tmp_path / "search", DuplicateSettings())


def test_texts_that_cannot_be_read_again_are_told(tmp_path):
    draw = random.Random(16)
    text = prose(draw, 60)
    sign_shard(tmp_path / "s", [(0, text), (1, edited(draw, text, 1))], DuplicateSettings())
    shard = SignedShard(tmp_path / "s", lambda: [(0, text)])
    with pytest.raises(DuplicatesError, match="1 signed documents are not read again, such as number 1"):
        find_duplicates([shard], tmp_path / "search", DuplicateSettings())


def test_what_stops_the_search_is_told(tmp_path):
    sign_shard(tmp_path / "s", [(0, "a b")], DuplicateSettings())
    table = pq.read_table(tmp_path / "s")
    renamed = table.rename_columns(["number", *table.column_names[1:]])
    pq.write_table(renamed.replace_schema_metadata(table.schema.metadata), tmp_path / "s")
    with pytest.raises(DuplicatesError, match="the signatures cannot be compared in"):
        find_duplicates([SignedShard(tmp_path / "s", list)], tmp_path / "search", DuplicateSettings())


def test_signatures_of_another_length_are_refused(tmp_path):
    signed = signature("a b", DuplicateSettings(near=False))
    with pytest.raises(DuplicatesError, match="a signature has 16 bytes, not 184"):
        write_signatures(tmp_path / "s", [(0, signed)], DuplicateSettings())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 0.2}, "a similarity of 0.2 is no threshold for duplicates."),
        ({"threshold": 1.5}, "a similarity of 1.5"),
        ({"threshold": float("nan")}, "a similarity of nan"),
        ({"threshold": True}, "a similarity of True"),
        ({"threshold": "high"}, "a similarity of 'high'"),
        ({"words": 0}, "runs of 0 words cannot be compared."),
        ({"words": 2.5}, "runs of 2.5 words"),
        ({"words": True}, "runs of True words"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, message):
    with pytest.raises(DuplicatesError) as refused:
        DuplicateSettings(**given)
    assert str(refused.value).startswith(message)


def test_the_file_of_duplicates_is_plain_parquet(tmp_path):
    draw = random.Random(17)
    text = prose(draw, 60)
    searched(tmp_path, [text, text])
    table = pq.read_table(tmp_path / "search" / "duplicates.parquet")
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float64(), pa.string()]
    assert table.to_pylist() == [{"ordinal": 1, "kept": 0, "similarity": 1.0, "kind": "exact"}]
