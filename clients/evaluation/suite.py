"""Name tasks by kind and path, check them all, then run them one after the other."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from compactds.clients.evaluation.beir import Collection, read_collection
from compactds.clients.evaluation.choices import evaluate_choices
from compactds.clients.evaluation.errors import WRONG_VALUE, EvaluationError
from compactds.clients.evaluation.intervals import SEED
from compactds.clients.evaluation.measures import DEFAULT_MEASURES, check_depth, parse_measures
from compactds.clients.evaluation.protocol import Searcher
from compactds.clients.evaluation.queries import load_queries
from compactds.clients.evaluation.recall import recall_against_exact
from compactds.clients.evaluation.report import TaskResult, choices_result, recall_result, retrieval_result
from compactds.clients.evaluation.retrieval import MAX_K, Run, evaluate_retrieval
from compactds.clients.evaluation.sampling import sample, sample_by_subject, sample_collection
from compactds.clients.evaluation.searching import PLAIN, Asking, Progress, ignore_progress
from compactds.clients.evaluation.tasks import Question, load_arc, load_mmlu, load_questions
from compactds.clients.questions import overlap_texts

KINDS = ("retrieval", "mmlu", "arc", "choices", "recall")


@dataclass(frozen=True, slots=True)
class Options:
    """Hold what tasks can be told.

    `k` is that of recall@k; `top_n` hits score a choice; `limit` bounds the questions of a subject and
    the queries of other tasks; `split` is a collection's; `depth` and `max_k` are those of
    `evaluate_retrieval`. With `decontaminate` no passage counts that overlaps with a question of its task.
    """

    asking: Asking = PLAIN
    k: int = 10
    top_n: int = 1
    limit: int | None = None
    seed: int = SEED
    measures: Sequence[str] = DEFAULT_MEASURES
    depth: int | None = None
    split: str | None = None
    max_k: int = MAX_K
    decontaminate: bool = False

    def asking_for(self, questions: Sequence[Question]) -> Asking:
        """Return how a task of these questions asks its queries."""
        if not self.decontaminate:
            return self.asking
        return replace(self.asking, exclude_overlap_with=overlap_texts(questions))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold a task's result and, for retrieval, the rankings it is computed from."""

    result: TaskResult
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Hold a task that is read and checked: its name, its number of searches, and how to run it."""

    name: str
    searches: int
    _run: Callable[[Searcher, Progress], Outcome] = field(repr=False)

    def run(self, searcher: Searcher, progress: Progress = ignore_progress) -> Outcome:
        """Run the task; `progress` is told how many of its searches are done."""
        return self._run(searcher, progress)


def load_task(kind: str, path: str, options: Options, name: str | None = None) -> Task:
    """Read and check a task; raise EvaluationError for an unknown kind or whatever is wrong with it.

    `name` is what reports call the task; its kind if left out.
    """
    match kind:
        case "retrieval":
            return _retrieval(read_collection(path, options.split), options, name)
        case "recall":
            return _recall(load_queries(path), options, name or kind)
        case "mmlu":
            return _choices(load_mmlu(path), options, name or kind)
        case "arc":
            return _choices(load_arc(path), options, name or kind)
        case "choices":
            return _choices(load_questions(path), options, name or kind)
        case _:
            raise EvaluationError(
                f"{kind!r} is not a kind of task.",
                value=kind,
                remedy=f"There are {', '.join(KINDS)}.",
                code=WRONG_VALUE,
            )


def _retrieval(collection: Collection, options: Options, name: str | None) -> Task:
    check_depth(parse_measures(options.measures), options.depth)
    if options.limit is not None:
        collection = sample_collection(collection, options.limit, options.seed)
    label = name or f"retrieval {collection.name}"
    asking = options.asking_for(_plain_questions(collection.queries.values()))

    def run(searcher: Searcher, progress: Progress) -> Outcome:
        report = evaluate_retrieval(
            searcher,
            collection,
            options.measures,
            asking=asking,
            depth=options.depth,
            max_k=options.max_k,
            seed=options.seed,
            progress=progress,
        )
        return Outcome(retrieval_result(label, report), report.run)

    return Task(label, len(collection.queries), run)


def _recall(queries: list[str], options: Options, name: str) -> Task:
    if options.limit is not None:
        queries = sample(queries, options.limit, options.seed)
    asking = options.asking_for(_plain_questions(queries))

    def run(searcher: Searcher, progress: Progress) -> Outcome:
        report = recall_against_exact(
            searcher, queries, options.k, asking=asking, seed=options.seed, progress=progress
        )
        return Outcome(recall_result(name, report))

    return Task(name, len(queries), run)


def _choices(questions: list[Question], options: Options, name: str) -> Task:
    if options.limit is not None:
        questions = sample_by_subject(questions, options.limit, options.seed)
    asking = options.asking_for(questions)

    def run(searcher: Searcher, progress: Progress) -> Outcome:
        report = evaluate_choices(searcher, questions, top_n=options.top_n, asking=asking, progress=progress)
        return Outcome(choices_result(name, report))

    return Task(name, sum(len(question.choices) for question in questions), run)


def _plain_questions(texts: Iterable[str]) -> list[Question]:
    return [Question("", "", text, (), 0) for text in texts]
