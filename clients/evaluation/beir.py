"""Read the queries and judgements of a retrieval test collection in BEIR's layout.

A folder holds `queries.jsonl` ({"_id", "text", "metadata"}) and either `qrels.tsv` or
`qrels/<split>.tsv`: query id, document id and relevance, separated by tabs, under a header. The corpus
is not read: the store already holds it, under the same document ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compactds.clients.evaluation.errors import WRONG_VALUE, EvaluationError
from compactds.clients.evaluation.lines import id_field, read_lines, read_records, text_field

DEFAULT_SPLIT = "test"

Judgements = Mapping[str, Mapping[str, int]]
"""Map a query's id to the relevance of its judged documents, by their ids."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Hold the queries that can be scored, and what was left out.

    `queries` maps ids to texts, in the file's order; each has at least one relevant document in
    `judgements`. `without_text` counts judged queries that `queries.jsonl` lacks and
    `without_relevant` those whose judgements are all 0 or less: no ranking of theirs is better than
    another.
    """

    name: str
    queries: Mapping[str, str]
    judgements: Judgements
    without_text: int = 0
    without_relevant: int = 0


def read_collection(folder: str | Path, split: str | None = None) -> Collection:
    """Read a collection, only the queries of `split` if it is given.

    A split is a file `qrels/<split>.tsv`, or the queries whose `metadata.split` says so. Without one,
    `qrels.tsv` is read, else `qrels/test.tsv`. Raises EvaluationError naming file, line and value.
    """
    root = Path(folder)
    qrels, split_is_file = _find_qrels(root, split)
    judgements = read_judgements(qrels)
    texts, splits = _read_queries(_find_queries(root))
    if split is None or split_is_file:
        without_text = sum(query_id not in texts for query_id in judgements)
    else:
        texts = {query_id: text for query_id, text in texts.items() if splits[query_id] == split}
        without_text = 0
        if not texts:
            known = ", ".join(sorted({repr(name) for name in splits.values() if name})) or "none"
            raise EvaluationError(
                f"{root}: no query belongs to split {split!r}.",
                value=split,
                remedy=f"Splits of this collection: {known}.",
                code=WRONG_VALUE,
            )
    judged = {query_id: text for query_id, text in texts.items() if query_id in judgements}
    scored = {query_id: text for query_id, text in judged.items() if max(judgements[query_id].values()) > 0}
    if not scored:
        raise EvaluationError(
            f"{qrels}: no query has both a text and a relevant document.",
            value=str(qrels),
            remedy="Check that the ids of queries.jsonl and of the judgements agree, and the split.",
        )
    name = root.resolve().name if split is None else f"{root.resolve().name} ({split})"
    kept = {query_id: judgements[query_id] for query_id in scored}
    return Collection(name, scored, kept, without_text, len(judged) - len(scored))


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Read a file of tab-separated query id, document id and relevance; a header is skipped."""
    judgements: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        columns = line.split("\t")
        if len(columns) != 3 or not columns[0] or not columns[1]:
            raise EvaluationError(
                f"{place}: expected query id, document id and relevance, separated by tabs.",
                value=line[:80],
                remedy="BEIR's judgements have three columns.",
            )
        query_id, document_id, relevance = columns
        try:
            grade = int(relevance)
        except ValueError:
            if number == 1:
                continue
            raise EvaluationError(
                f"{place}: relevance is {relevance!r}, expected a whole number.",
                value=relevance,
                remedy="Use 0 for not relevant and 1 or more for relevant.",
            ) from None
        if judgements.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
            raise EvaluationError(
                f"{place}: document {document_id!r} is judged {grade} for query {query_id!r}, and "
                f"{judgements[query_id][document_id]} above.",
                value=document_id,
                remedy="Keep one of the two judgements.",
            )
    if not judgements:
        raise EvaluationError(
            f"{path} holds no judgement.", value=str(path), remedy="Check that it is the right file."
        )
    return judgements


def _find_qrels(root: Path, split: str | None) -> tuple[Path, bool]:
    """Return the file of judgements and whether it holds exactly the split."""
    by_split = root / "qrels" / f"{split or DEFAULT_SPLIT}.tsv"
    single = root / "qrels.tsv"
    order = [(by_split, True), (single, False)] if split else [(single, False), (by_split, True)]
    for path, split_is_file in order:
        if path.is_file():
            return path, split_is_file
    raise EvaluationError(
        f"{root} has neither {single.name} nor qrels/{by_split.name}.",
        value=str(root),
        remedy="Give the folder of a collection in BEIR's layout.",
    )


def _find_queries(root: Path) -> Path:
    for name in ("queries.jsonl", "queries.jsonl.gz"):
        if (root / name).is_file():
            return root / name
    raise EvaluationError(
        f"{root} has no queries.jsonl.",
        value=str(root),
        remedy="Give the folder of a collection in BEIR's layout.",
    )


def _read_queries(path: Path) -> tuple[dict[str, str], dict[str, str | None]]:
    """Return texts and splits by query id."""
    texts: dict[str, str] = {}
    splits: dict[str, str | None] = {}
    for place, record in read_records(path):
        query_id = id_field(place, record, "_id")
        if query_id in texts:
            raise EvaluationError(
                f"{place}: a second query with id {query_id!r}.", value=query_id, remedy="Make ids unique."
            )
        texts[query_id] = text_field(place, record, "text")
        metadata = record.get("metadata")
        split = metadata.get("split") if isinstance(metadata, dict) else None
        splits[query_id] = split if isinstance(split, str) else None
    return texts, splits
