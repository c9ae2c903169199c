"""Read datasets of the Hugging Face hub at one commit, however often a build is stopped, and say which."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compactds.indexer.sources import SourceOptions
from compactds.indexer.sources.hub import hub_commit, is_commit
from compactds.indexer.workspace import Workspace

COMMITS_STATE = "commits"


@dataclass(frozen=True, slots=True)
class Revision:
    """Hold which commit was read of a source: a dataset, at the revision that was asked for, else ""."""

    source: str
    dataset: str
    revision: str
    commit: str


def pinned(
    workspace: Workspace, sources: Sequence[SourceOptions]
) -> tuple[list[SourceOptions], list[Revision]]:
    """Return the sources as they are to be read, datasets at a commit, and which commits those are.

    A build that goes on reads the commits that it began with. A dataset whose commit nobody can tell, such
    as a folder on this machine, is read as it is.
    """
    known: dict[str, str] = workspace.read_state(COMMITS_STATE) or {}
    options, revisions = [], []
    for number, source in enumerate(sources):
        commit = (known.get(str(number)) or hub_commit(source)) if source.is_hub_dataset else None
        if commit is not None:
            known[str(number)] = commit
            dataset = source.path.removeprefix("hf:")
            revisions.append(Revision(source.source_name, dataset, source.revision or "", commit))
            source = replace(source, revision=commit)
        options.append(source)
    if known:
        workspace.write_state(COMMITS_STATE, known)
    return options, revisions


def unchanging(source: SourceOptions) -> bool:
    """Tell whether a source without files is the same whenever it is read: a dataset at one commit."""
    return source.is_hub_dataset and source.revision is not None and is_commit(source.revision)
