"""`compactds tune`: calibrate a store for one's own queries, and see what codes cost and give."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.command import Json
from compactds.cli.curves import curve_chart, curve_table
from compactds.cli.drawing import Chart, Series, check_plot, draw, text
from compactds.cli.output import say, say_json, table
from compactds.cli.progress import progress
from compactds.cli.stores import check_folder

if TYPE_CHECKING:
    from compactds.datastore.advisor import CodeMeasure
    from compactds.datastore.encoders.base import EncoderSpec, Vectors
    from compactds.datastore.manifest import Manifest
    from compactds.datastore.tuning import OwnQueries, TunedSegment


def tune(
    store: Annotated[
        Path | None,
        typer.Argument(
            metavar="STORE", help="The folder of a store; not needed with --vectors.", callback=check_folder
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Queries: .jsonl, a file with one a line, or a .npy file of vectors."),
    ] = None,
    codes: Annotated[
        bool, typer.Option("--codes", help="Measure what codes cost and give; change nothing.")
    ] = False,
    vectors: Annotated[
        Path | None, typer.Option(help="With --codes: a .npy file of vectors, in place of a store's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the new curve and keep the old one.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw what is shown into this .svg file.")] = None,
    json: Json = False,
) -> None:
    """Calibrate a store for your own queries, or compare codes.

    Codes are compared on vectors, of the store or your own, and nothing is changed.
    """
    _check(store, queries, vectors, codes=codes)
    if plot is not None:
        check_plot(plot)
    if codes:
        _codes(store, vectors, plot, json=json)
    elif store is not None:
        _calibrate(store, queries, plot, dry_run=dry_run, json=json)


def _check(store: Path | None, queries: Path | None, vectors: Path | None, *, codes: bool) -> None:
    if vectors is not None and not codes:
        raise typer.BadParameter("goes with --codes", param_hint="'--vectors'")
    if queries is not None and codes:
        raise typer.BadParameter("does not go with --codes", param_hint="'--queries'")
    if (store is None) == (vectors is None):
        raise typer.BadParameter("name a store, or vectors with --codes --vectors", param_hint="'STORE'")


def _calibrate(store: Path, queries: Path | None, plot: Path | None, *, dry_run: bool, json: bool) -> None:
    from compactds.datastore.manifest import read_manifest, write_manifest
    from compactds.datastore.tuning import tune as tune_store
    from compactds.datastore.tuning import tuned
    from compactds.indexer.workspace import locked

    manifest = read_manifest(store)  # before the lock, which makes a folder
    with nullcontext() if dry_run else locked(store):
        manifest = read_manifest(store)
        with progress() as shown:
            own = None
            if queries is not None:
                shown.stage("reading queries", None)
                own = _own_queries(queries, store, manifest)
            shown.stage("calibrating", None)
            segments = tune_store(store.absolute(), manifest, own)
        if not dry_run:
            write_manifest(store, tuned(manifest, segments))
    if json:
        say_json({"store": str(store), "kept": not dry_run, "segments": [_document(one) for one in segments]})
    else:
        _show(segments, dry_run=dry_run)
    if plot is not None:
        draw(curve_chart(manifest.name, _curves(segments)), plot)


def _own_queries(path: Path, store: Path, manifest: "Manifest") -> "OwnQueries":
    """Return a user's queries as both encoders of a store see them."""
    from compactds.datastore.advisor import open_vectors
    from compactds.datastore.errors import SearchError
    from compactds.datastore.queries import check_vectors
    from compactds.datastore.tuning import OwnQueries, pick_queries

    specs = manifest.encoder, manifest.exact_encoder
    if path.suffix == ".npy":
        if specs[0].fingerprint != specs[1].fingerprint:
            raise SearchError(
                "this store has two encoders, so one vector a query is not enough.",
                value=str(path),
                remedy="Give queries as text.",
            )
        given = open_vectors(path)
        checked, _ = check_vectors(given[pick_queries(len(given))], specs[0])
        return OwnQueries(path.name, checked, checked)
    from compactds.clients.evaluation.queries import load_queries

    texts = load_queries(path)
    wanted = [texts[number] for number in pick_queries(len(texts))]
    proposing = _encoded(specs[0], store, wanted)
    same = specs[0].fingerprint == specs[1].fingerprint
    return OwnQueries(path.name, proposing, proposing if same else _encoded(specs[1], store, wanted))


def _encoded(spec: "EncoderSpec", store: Path, texts: Sequence[str]) -> "Vectors":
    from compactds.datastore.encoders import load_spec
    from compactds.datastore.errors import SearchError

    if spec.kind == "vectors":
        raise SearchError(
            "this store was built from ready-made vectors and names no encoder.",
            remedy="Give queries as vectors, in a .npy file.",
        )
    return load_spec(spec, store_root=store).encode_queries(texts)


def _document(segment: "TunedSegment") -> dict[str, Any]:
    return {
        "name": segment.after.name,
        "calibrated_on": segment.after.calibrated_on,
        "before": [asdict(point) for point in segment.before.calibration],
        "after": [asdict(point) for point in segment.after.calibration],
        "old_curve_delivered": {f"{asked:g}": given for asked, given in segment.delivered.items()},
    }


def _curves(segments: Sequence["TunedSegment"]) -> dict[str, list[dict[str, Any]]]:
    several = len(segments) > 1
    return {
        f"{when} {segment.after.name}" if several else when: [asdict(point) for point in record.calibration]
        for segment in segments
        for when, record in (("before", segment.before), ("after", segment.after))
    }


def _show(segments: Sequence["TunedSegment"], *, dry_run: bool) -> None:
    for segment in segments:
        say(f"segment {segment.after.name}: {segment.after.index.kind}", bold=True)
        if not segment.after.calibration:
            say("  every search is exact; there is nothing to calibrate")
            continue
        for title, record in (("before", segment.before), ("after", segment.after)):
            say(f"{title}, measured with {record.calibrated_on}", bold=True)
            for line in curve_table([asdict(point) for point in record.calibration]):
                say(f"  {line}")
        given = ", ".join(f"{asked:g} → {recall:.3f}" for asked, recall in segment.delivered.items())
        say(f"what the old curve gives these queries, asked → given: {given}")
    if not any(segment.after.calibration for segment in segments):
        return
    say("the old curve stays" if dry_run else "the new curve is kept", fg="yellow" if dry_run else "green")


def _codes(store: Path | None, path: Path | None, plot: Path | None, *, json: bool) -> None:
    from compactds.datastore.advisor import count_codes, measure_codes, split_sample

    total, sampled = _sampled(store, path)
    with progress() as shown:
        shown.stage("finding true neighbours", None)
        sample = split_sample(sampled)
        shown.stage("measuring codes", count_codes(sample.vectors.shape[1]))
        found = []
        for measure in measure_codes(sample):
            found.append(measure)
            shown.advance(1)
    about = {
        "vectors": total,
        "dimension": sample.vectors.shape[1],
        "sample": len(sample.vectors),
        "queries": len(sample.queries),
    }
    chart = codes_chart(found)
    if json:
        say_json({**about, "codes": [asdict(measure) for measure in found]})
    else:
        say(
            f"{about['sample']:,} of {total:,} vectors of {about['dimension']} dimensions, "
            f"{about['queries']:,} queries, every list scanned by one thread, recall@10"
        )
        for line in codes_table(found):
            say(line)
        for line in text(chart):
            say(line)
    if plot is not None:
        draw(chart, plot)


def _sampled(store: Path | None, path: Path | None) -> tuple[int, "Vectors"]:
    """Return how many vectors there are, and a sample of them, shape (n, d)."""
    import numpy as np

    from compactds.datastore.advisor import open_vectors, sample_rows

    if path is not None:
        given = open_vectors(path)
        return len(given), np.asarray(given[sample_rows(*given.shape)], np.float32)
    assert store is not None
    from compactds.datastore.manifest import read_manifest
    from compactds.datastore.tuning import sample_store

    return sample_store(store.absolute(), read_manifest(store))


def codes_table(found: Sequence["CodeMeasure"]) -> list[str]:
    """Return what codes cost and give as lines of a table."""
    rows = [
        (
            measure.name,
            f"{measure.code_bytes:g}",
            f"{measure.ram_bytes:g}",
            f"{measure.recall:.3f}",
            *(f"{recall:.3f}" for recall in measure.reranked.values()),
            *(f"{count:,}" if count else "> 1,000" for count in measure.candidates.values()),
            f"{measure.queries_per_second:,.0f}",
            f"{measure.train_s:.1f}",
        )
        for measure in found
    ]
    reranked, wanted = found[0].reranked, found[0].candidates
    header = (
        *("code", "bytes", "with row number", "alone"),
        *(f"best {count} reranked" for count in reranked),
        *(f"K for {recall:g}" for recall in wanted),
        *("queries/s", "s to make"),
    )
    return table(rows, header=header)


def codes_chart(found: Sequence["CodeMeasure"]) -> Chart:
    """Return the chart of recall over bytes, before and after the exact scores."""
    ordered = sorted(found, key=lambda measure: measure.ram_bytes)
    labels = [f"{measure.name}: {measure.ram_bytes:g} bytes" for measure in ordered]
    alone = Series("the code alone", [(one.ram_bytes, one.recall) for one in ordered], labels, joined=False)
    counts = list(ordered[0].reranked) if ordered else []
    after = [
        Series(
            f"{count} candidates, exact scores",
            [(measure.ram_bytes, measure.reranked[count]) for measure in ordered],
            labels,
            joined=False,
        )
        for count in counts
    ]
    return Chart("What codes cost and give", "bytes a vector in memory", "recall@10", [alone, *after])
