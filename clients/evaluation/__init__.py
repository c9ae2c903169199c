"""Measure retrieval and what it does for answers, embedded or over HTTP."""

from compactds.clients.evaluation.beir import Collection, read_collection, read_judgements
from compactds.clients.evaluation.choices import ChoicesReport, evaluate_choices
from compactds.clients.evaluation.errors import EvaluationError
from compactds.clients.evaluation.protocol import Searcher
from compactds.clients.evaluation.queries import load_queries
from compactds.clients.evaluation.recall import RecallReport, recall_against_exact
from compactds.clients.evaluation.report import (
    Evaluation,
    choices_result,
    recall_result,
    retrieval_result,
    to_json,
    to_markdown,
)
from compactds.clients.evaluation.retrieval import RetrievalReport, evaluate_retrieval, write_run
from compactds.clients.evaluation.sampling import sample, sample_by_subject, sample_collection
from compactds.clients.evaluation.searching import Asking
from compactds.clients.evaluation.suite import Options, Task, load_task
from compactds.clients.evaluation.tasks import Question, load_arc, load_mmlu, load_questions

__all__ = [
    "Asking",
    "ChoicesReport",
    "Collection",
    "Evaluation",
    "EvaluationError",
    "Options",
    "Question",
    "RecallReport",
    "RetrievalReport",
    "Searcher",
    "Task",
    "choices_result",
    "evaluate_choices",
    "evaluate_retrieval",
    "load_arc",
    "load_mmlu",
    "load_queries",
    "load_questions",
    "load_task",
    "read_collection",
    "read_judgements",
    "recall_against_exact",
    "recall_result",
    "retrieval_result",
    "sample",
    "sample_by_subject",
    "sample_collection",
    "to_json",
    "to_markdown",
    "write_run",
]
