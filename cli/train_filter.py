"""`compactds train-filter`: learn from examples which documents are wanted."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from compactds.cli.command import Json
from compactds.cli.output import say, say_json
from compactds.cli.progress import progress

if TYPE_CHECKING:
    from compactds.filters.corpus.quality_model import QualityModel
    from compactds.indexer.progress import Progress
    from compactds.indexer.sources import SourceOptions

DESCRIPTION = "model.json"
_LEAST_AUC = 0.8


def train_filter(
    good: Annotated[
        list[str],
        typer.Option(
            metavar="SOURCE", help="Examples of what you want: a file, folder or dataset. Repeatable."
        ),
    ],
    unwanted: Annotated[
        list[str], typer.Option(metavar="SOURCE", help="Examples of what you do not want. Repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the model.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="A sample of what is to be filtered, which sets the threshold. Repeatable."
        ),
    ] = None,
    keep: Annotated[float, typer.Option(min=0, max=1, help="The share to keep of the corpus.")] = 0.5,
    encoder: Annotated[
        Literal["none", "static"], typer.Option(help="Judge by embeddings too, of a static model.")
    ] = "none",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out records that cannot be used.")
    ] = False,
    json: Json = False,
) -> None:
    """Train the filter learned_quality on your examples.

    It says how well it tells held-out ones apart.
    """
    from compactds.filters.corpus.quality_training import TrainingSettings, train_quality_model
    from compactds.indexer.quality_encoder import QualityEncoder

    if not 0 <= keep <= 1:
        raise typer.BadParameter(f"{keep} is not between 0 and 1", param_hint="'--keep'")
    _check_folder(out)
    sources = {
        kind: _sources(paths, skip_invalid=skip_invalid)
        for kind, paths in (("good", good), ("unwanted", unwanted), ("corpus", corpus or ()))
    }
    _check_disjoint(sources["good"], sources["unwanted"])
    with progress() as shown:
        embedding = QualityEncoder.load_static() if encoder == "static" else None
        model = train_quality_model(
            _texts("good examples", sources["good"], shown),
            _texts("unwanted examples", sources["unwanted"], shown),
            corpus=_texts("corpus", sources["corpus"], shown) if corpus else None,
            settings=TrainingSettings(keep=keep),
            encode=embedding,
            encoder=embedding.name if embedding is not None else "",
        )
    if embedding is not None:
        embedding.save(out)
    model.save(out)
    if json:
        say_json({"path": str(out), "encoder": model.encoder, "threshold": model.threshold, **model.report})
    else:
        _show(out, model)


def _check_folder(out: Path) -> None:
    """Refuse a folder that holds something other than a model, before the work rather than after it."""
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is not a folder", param_hint="'--out'")
    if out.is_dir() and not (out / DESCRIPTION).exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} holds something other than a model", param_hint="'--out'")


def _sources(paths: Sequence[str], *, skip_invalid: bool) -> "list[SourceOptions]":
    from compactds.indexer.sources import SourceOptions

    return [SourceOptions(path, skip_invalid=skip_invalid) for path in paths]


def _check_disjoint(good: "Sequence[SourceOptions]", unwanted: "Sequence[SourceOptions]") -> None:
    both = sorted(_names(good) & _names(unwanted))
    if both:
        raise typer.BadParameter(
            f"{both[0]} is an example of what you want, too; a text can be only one of the two",
            param_hint="'--unwanted'",
        )


def _names(sources: "Sequence[SourceOptions]") -> set[str]:
    """Return the files of the sources, wherever links lead to, and the names of datasets."""
    from compactds.indexer.sources import list_input_files

    datasets = {one.source_name for one in sources if one.is_hub_dataset}
    local = [file for one in sources if not one.is_hub_dataset for file in list_input_files(one)]
    return datasets | {str(file.path.resolve()) for file in local}


def _texts(title: str, sources: "Sequence[SourceOptions]", shown: "Progress") -> Iterator[str]:
    from compactds.indexer.sources import read_documents

    shown.stage(f"reading {title}", None)
    for source in sources:
        for document in read_documents(source):
            shown.advance(1)
            yield document.text


def _show(out: Path, model: "QualityModel") -> None:
    report = model.report
    say(f"trained {out}", bold=True)
    say(f"{report['good']:,} good and {report['unwanted']:,} unwanted texts, {report['held_out']:,} held out")
    say(
        f"held-out AUC {report['auc']:.3f}: how often a good text scores above an unwanted one; 0.5 is chance"
    )
    of_what = f"{report['reference_texts']:,} texts of the corpus"
    if report["reference"] != "corpus":
        of_what = f"the {report['reference_texts']:,} held-out examples, as no --corpus was given"
    say(f"threshold {model.threshold:.3f} keeps {report['keep']:.0%} of {of_what}")
    precision, recall = (
        "none kept" if report[name] is None else f"{report[name]:.3f}" for name in ("precision", "recall")
    )
    say(f"of held-out texts at this threshold: precision {precision}, recall {recall}")
    if report["auc"] < _LEAST_AUC:
        say("it tells the examples apart poorly; give more of them, or purer ones", fg="yellow")
    say(f'next, in a recipe: filters = [{{ filter = "learned_quality", model = "{out.absolute()}" }}]')
