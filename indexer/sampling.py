"""Choose a sample of the sources that is like all of them, and find what in it would stop a build."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, islice

import orjson

from compactds.indexer.counting import RecordCount, count_records
from compactds.indexer.errors import BuildError, RecordError, SourceError
from compactds.indexer.reading import ReadTask, rejects_of
from compactds.indexer.sources import InputFile, Notices, Rejection, SourceOptions, read_documents
from compactds.indexer.sources.formats import DOCUMENT_FORMATS
from compactds.indexer.sources.options import SKIP_REMEDY
from compactds.indexer.workspace import Workspace

RECORD_FILES = 20
"""Of a source, this many files of records are sampled if they have enough records."""
TYPICAL_RECORD_BYTES = 2_000
"""What a record of a file takes that is not counted: an array of JSON, or a file that cannot be read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold the tasks that read a sample, and how many files each source has."""

    tasks: tuple[ReadTask, ...]
    files_of_sources: tuple[int, ...]

    @property
    def files(self) -> int:
        """Return how many files are looked at."""
        return sum(len(task.files or ()) for task in self.tasks)

    @property
    def all_files(self) -> int:
        """Return how many files there are."""
        return sum(self.files_of_sources)

    def has_all(self, source: int, read: int) -> bool:
        """Tell whether the tasks, which read so many records of a source, came to the end of each file."""
        tasks = [task for task in self.tasks if task.source == source]
        return len(tasks) == self.files_of_sources[source] and all(
            _is_single(task) or task.limit is None or read < task.limit for task in tasks
        )


def choose_sample(
    sources: Sequence[SourceOptions], files: Sequence[Sequence[InputFile]], wanted: int
) -> Sample:
    """Return a sample of about `wanted` documents of each source, from the beginnings of its files.

    All of a source are taken if it has no more than that. Else files of records and files that are one
    document each give as many as their part of the source is; of either, files are taken from all over it,
    and a file of records gives more the more it has.
    """
    numbers = count()
    tasks = [
        ReadTask(next(numbers), source, None if file is None else (file,), limit)
        for source, options in enumerate(sources)
        for file, limit in (
            [(None, wanted)] if options.is_hub_dataset else _shares(options, files[source], wanted)
        )
    ]
    return Sample(tuple(tasks), tuple(map(len, files)))


def _shares(
    options: SourceOptions, files: Sequence[InputFile], wanted: int
) -> Iterator[tuple[InputFile, int]]:
    """Yield files of a source in their order, with how many records to read of each."""
    single = [file for file in files if file.format in DOCUMENT_FORMATS]
    of_records = [file for file in files if file.format not in DOCUMENT_FORMATS]
    looked_at = _spread(of_records, RECORD_FILES)
    counts = [_records(options, file) for file in looked_at]
    mean = sum(counts) / max(1, len(counts))
    if mean * RECORD_FILES < wanted and len(looked_at) < len(of_records):  # small files: more of them
        looked_at = _spread(of_records, round(wanted / max(1.0, mean)))
        counts = [_records(options, file) for file in looked_at]
        mean = sum(counts) / len(counts)
    in_records = mean * len(of_records)
    limits = {file.name: wanted for file in looked_at}
    if len(single) + in_records > wanted:
        part = max(1, round(wanted * in_records / (len(single) + in_records))) if of_records else 0
        part = min(part, max(1, wanted - 1)) if single else wanted
        limits = dict(zip([file.name for file in looked_at], _divided(part, counts), strict=True))
        single = _spread(single, wanted - part)
    limits |= {file.name: 1 for file in single}
    yield from ((file, limits[file.name]) for file in files if limits.get(file.name))


def _spread(files: Sequence[InputFile], most: int) -> list[InputFile]:
    """Return at most so many files, evenly from all over a list."""
    taken = min(most, len(files))
    return [files[place * len(files) // taken] for place in range(taken)]


def _divided(total: int, counts: Sequence[float]) -> list[int]:
    """Return parts of a total in proportion to counts, which add up to it; at least 1 if that is enough."""
    least = 1 if total >= len(counts) else 0
    parts: list[int] = []
    given, before, whole = 0, 0.0, sum(counts)
    for number in counts:
        before += number
        part = round((total - least * len(counts)) * before / whole) - given
        given += part
        parts.append(part + least)
    return parts


def _records(options: SourceOptions, file: InputFile) -> float:
    """Return about how many records a file has, without reading more than its beginning."""
    found = RecordCount(file.size_bytes / TYPICAL_RECORD_BYTES, counted=False)
    if file.format != "json":
        with suppress(SourceError):  # reading it tells of the damage
            found = count_records(replace(options, max_documents=None), [file])
    return max(1.0, found.records)


def estimate_records(options: SourceOptions, files: Sequence[InputFile]) -> RecordCount:
    """Return how many records a source has, guessed by sizes for files that cannot be read to their ends.

    Raises BuildError as `count_records` does.
    """
    try:
        return count_records(options, files)
    except SourceError:
        total = sum(1.0 if file.format in DOCUMENT_FORMATS else _records(options, file) for file in files)
        return RecordCount(min(total, options.max_documents or total), counted=False)


def known_records(options: SourceOptions, count: RecordCount, read: int, *, has_all: bool) -> int | None:
    """Return how many records a build reads of a source; None if neither its count nor a sample tells.

    `read` are those of the sample; `has_all` tells that there are no more. A build that leaves out records
    leaves out the rest of a damaged file as one, which no count sees, and of more than `max_documents` reads
    as many more, which none knows.
    """
    most = options.max_documents
    if options.skip_invalid:
        return read if has_all and (most is None or read < most) else None
    if has_all:
        return read if most is None else min(read, most)
    return round(count.records) if count.counted else None


def _is_single(task: ReadTask) -> bool:
    """Tell whether a task reads a file that is one document."""
    return task.files is not None and task.files[0].format in DOCUMENT_FORMATS


def find_stops(
    workspace: Workspace, sources: Sequence[SourceOptions], tasks: Sequence[ReadTask]
) -> list[BuildError]:
    """Return the errors at which a build would stop in what tasks have sampled, the first of each task.

    `sources` are as the build has them: with skip_invalid, nothing stops it. Files of tasks that have
    rejected something are read once more for the error as it is, but not a dataset of the hub.
    """
    stops: list[BuildError] = []
    for task in tasks:
        options, rejects = sources[task.source], rejects_of(workspace, task.number)
        if options.skip_invalid or not rejects.exists():
            continue
        if task.files is None:
            first = orjson.loads(rejects.read_bytes().splitlines()[0])
            stops.append(RecordError(first["reason"], origin=first["origin"], remedy=SKIP_REMEDY))
            continue
        documents = read_documents(options, _passed_over, files=task.files, notices=Notices())
        try:
            for _ in islice(documents, task.limit):
                pass
        except (RecordError, SourceError) as error:
            stops.append(error)
    return stops


def _passed_over(rejection: Rejection) -> None:
    """Take no note of an empty file: no build stops at that."""
