"""Turn what was measured in buckets into Markdown."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from benchmarks.fanns.cases import UNFILTERED, Bucket, Problem
from benchmarks.fanns.filters import SIGNS
from benchmarks.fanns.rounds import Measured, System
from benchmarks.peers.filtered_systems import GIVEN_BITMAPS
from benchmarks.peers.tables import setting_text, table

OURS = "compactds"

Row = tuple[str, str, str, str]


def planned(system: System, bucket: Bucket) -> Measured:
    """Return what the planner did in a bucket: the first setting, in which no plan is forced."""
    return system.measured[bucket][0]


def ran_as_forced(one: Measured) -> bool:
    """Tell whether a forced plan was the one that ran: where it cannot be, the planner's is taken."""
    return "plan" in one.setting and not one.failed and set(one.plans) <= {one.setting["plan"], None}


def forced(system: System, bucket: Bucket, recall: float) -> Measured | None:
    """Return the fastest of the forced plans that reach a recall in a bucket."""
    able = [
        one
        for one in system.measured[bucket][1:]
        if ran_as_forced(one) and one.seconds and one.recall >= recall
    ]
    return min(able, key=lambda one: one.p50_ms, default=None)


def filtered(system: System) -> list[Bucket]:
    return [bucket for bucket in system.measured if bucket != UNFILTERED]


def regret(system: System, bucket: Bucket, recall: float) -> float | None:
    """Return the time of the planner's choice over that of the best forced plan; 1 if it is that plan."""
    chosen = planned(system, bucket)
    best = forced(system, bucket, min(recall, chosen.recall))
    if best is None:
        return None
    return 1.0 if set(chosen.plans) == {best.setting["plan"]} else chosen.p50_ms / best.p50_ms


def unfiltered_ms(system: System, recall: float) -> float:
    """Return the time of the fastest unfiltered search of at least so much recall."""
    asked = [one for one in system.measured[UNFILTERED] if one.seconds]
    able = [one for one in asked if one.recall >= recall]
    return min(one.p50_ms for one in able) if able else max(one.p50_ms for one in asked)


def summary(ours: System, recall: float) -> str:
    """Return what must hold, in a table: the mean and the worst bucket."""
    rows = [*recall_rows(ours, recall), *time_rows(ours), *regret_rows(ours, recall), *filter_rows(ours)]
    return table(("", "mean (of times and ratios: median)", "worst bucket", "which"), rows)


def recall_rows(ours: System, recall: float) -> list[Row]:
    buckets = filtered(ours)
    whole = planned(ours, UNFILTERED)
    failures = [failure for bucket in ours.measured for failure in planned(ours, bucket).failed]
    recalls = {bucket: planned(ours, bucket).recall for bucket in buckets}
    exact = [recalls[bucket] for bucket in buckets if set(planned(ours, bucket).plans) == {"exact"}]
    worst = min(recalls, key=recalls.__getitem__)
    disallowed = sum(planned(ours, bucket).disallowed for bucket in buckets)
    return [
        ("buckets, cases", f"{len(buckets)}, {sum(len(planned(ours, b).recalls) for b in buckets)}", "", ""),
        ("recall@10", f"{statistics.fmean(recalls.values()):.4f}", f"{recalls[worst]:.4f}", worst.name),
        ("recall@10, unfiltered", f"{whole.recall:.4f}", "", ""),
        ("buckets under the recall asked for", f"{sum(r < recall for r in recalls.values())}", "", ""),
        (
            "recall@10 where the plan is exact",
            f"{statistics.fmean(exact or [math.nan]):.4f}",
            f"{min(exact, default=math.nan):.4f}",
            "",
        ),
        ("queries that failed", f"{len(failures)}", "", failures[0] if failures else ""),
        ("rows returned that are not allowed", f"{disallowed}", "", ""),
    ]


def time_rows(ours: System) -> list[Row]:
    """Return what searches take, and how many times as long as without a filter.

    That is without a filter and asked the same; finding as much as all buckets together, but for those
    whose plan is exact; finding as much as the bucket, whose few queries tell that roughly; and asked the
    same, for filters not seen before.
    """
    buckets, whole = filtered(ours), planned(ours, UNFILTERED)
    p50 = {bucket: planned(ours, bucket).p50_ms for bucket in buckets}
    everything = np.concatenate([planned(ours, bucket).seconds for bucket in buckets]) * 1000
    together = unfiltered_ms(ours, searched_recall(ours))
    ratios = {
        "× an unfiltered query": {b: p50[b] / whole.p50_ms for b in buckets},
        "× an unfiltered query of all buckets' recall": {b: p50[b] / together for b in buckets},
        "× an unfiltered query of the bucket's recall": {
            b: p50[b] / unfiltered_ms(ours, planned(ours, b).recall) for b in buckets
        },
    }
    if ours.filter_ms:
        ratios["× an unfiltered query, filter not seen before"] = {
            b: (p50[b] + ours.filter_ms[b]["first_ms"]) / whole.p50_ms for b in buckets
        }
    return [
        ("p50 ms, unfiltered", f"{whole.p50_ms:.3f}", "", f"p99 {whole.p99_ms:.3f}"),
        worst_row("p50 ms", p50, 3),
        ("p99 ms, all queries", f"{np.percentile(everything, 99):.3f}", "", ""),
        *(worst_row(name, values, 2) for name, values in ratios.items()),
        *(
            (f"buckets over 2 {name}", f"{sum(value > 2 for value in values.values())}", "", "")
            for name, values in ratios.items()
            if name.endswith("recall")
        ),
    ]


def searched_recall(ours: System) -> float:
    """Return the mean recall of the buckets in which not every allowed row is scored; 1 if there is none."""
    able = [one for bucket in filtered(ours) if set((one := planned(ours, bucket)).plans) != {"exact"}]
    return statistics.fmean(one.recall for one in able) if able else 1.0


def worst_row(name: str, values: dict[Bucket, float], digits: int) -> Row:
    """Return the median over buckets, the most, and where that is."""
    most = max(values, key=values.__getitem__)
    return name, f"{statistics.median(values.values()):.{digits}f}", f"{values[most]:.{digits}f}", most.name


def regret_rows(ours: System, recall: float) -> list[Row]:
    buckets = filtered(ours)
    regrets = [found for bucket in buckets if (found := regret(ours, bucket, recall)) is not None]
    if not regrets:
        return []
    cells = f"{statistics.median(regrets):.2f}", f"{np.percentile(regrets, 95):.2f}"
    return [("regret: median, 95th percentile", *cells, f"of {len(regrets)} buckets")]


def filter_rows(ours: System) -> list[Row]:
    """Return what filters take alone."""
    words = {
        "parse_ms": "filter read, ms",
        "first_ms": "filter to bitmap, not cached, ms",
        "cached_ms": "filter read and to bitmap, cached, ms",
    }
    taken = {
        words[name]: {bucket: times[name] for bucket, times in ours.filter_ms.items() if name in times}
        for name in words
    }
    return [worst_row(name, values, 3) for name, values in taken.items() if values]


def grouped(ours: System, recall: float, name: str) -> str:
    """Return recall and time of buckets grouped by selectivity, shape or correlation."""

    def of(bucket: Bucket) -> Any:
        return getattr(bucket, name)

    whole = planned(ours, UNFILTERED)
    rows = []
    for key in dict.fromkeys(of(bucket) for bucket in filtered(ours)):
        held = [bucket for bucket in filtered(ours) if of(bucket) == key]
        done = [planned(ours, bucket) for bucket in held]
        regrets = [found for bucket in held if (found := regret(ours, bucket, recall)) is not None]
        plans = dict.fromkeys(plan or "?" for one in done for plan in one.plans)
        rows.append(
            (
                f"{key:g}" if isinstance(key, float) else key,
                f"{len(held)}",
                f"{statistics.fmean(one.recall for one in done):.4f}",
                f"{min(one.recall for one in done):.4f}",
                f"{statistics.median(one.p50_ms for one in done):.3f}",
                f"{max(one.p50_ms for one in done):.3f}",
                f"{max(one.p99_ms for one in done):.3f}",
                f"{max(one.p50_ms for one in done) / whole.p50_ms:.2f}",
                f"{statistics.median(regrets):.2f} / {max(regrets):.2f}" if regrets else "",
                ", ".join(plans),
            )
        )
    heads = ("buckets", "recall@10", "worst", "p50 ms", "worst", "p99 ms, worst", "× unfiltered, worst")
    return table((name, *heads, "regret: median / worst", "plans"), rows)


def near_shares(problem: Problem) -> str:
    """Return how many of the nearest rows filters allow, by selectivity and correlation."""
    cases = [case for case in problem.cases if case.where is not None]
    rows = []
    for selectivity in dict.fromkeys(case.bucket.selectivity for case in cases):
        shares = [
            [
                case.near_share
                for case in cases
                if (case.bucket.selectivity, case.bucket.correlation) == (selectivity, correlation)
            ]
            for correlation in SIGNS
        ]
        cells = (f"{statistics.fmean(held):.4f}" if held else "" for held in shares)
        rows.append((f"{selectivity:g}", *cells))
    return table(("selectivity", *SIGNS), rows)


def worst_buckets(ours: System, recall: float, count: int = 15) -> str:
    """Return the buckets in which most is lost: those under the recall asked for, then by regret."""
    whole = planned(ours, UNFILTERED)

    def loss(bucket: Bucket) -> float:
        one = planned(ours, bucket)
        return 100 * max(0.0, recall - one.recall) + (
            regret(ours, bucket, recall) or one.p50_ms / whole.p50_ms
        )

    rows = []
    for bucket in sorted(filtered(ours), key=loss, reverse=True)[:count]:
        one, best = planned(ours, bucket), forced(ours, bucket, recall)
        plans = "; ".join(
            f"{other.setting['plan']} {other.recall:.2f} {other.p50_ms:.3f}"
            for other in ours.measured[bucket][1:]
            if ran_as_forced(other)
        )
        rows.append(
            (
                bucket.name,
                f"{one.recall:.3f}",
                f"{one.p50_ms:.3f}",
                f"{one.p50_ms / whole.p50_ms:.2f}",
                "/".join(dict.fromkeys(plan or "?" for plan in one.plans)),
                best.setting["plan"] if best else "",
                plans,
            )
        )
    heads = ("bucket", "recall@10", "p50 ms", "× unfiltered", "plan", "best plan", "forced: recall, p50 ms")
    return table(heads, rows)


def our_time(ours: System, bucket: Bucket, peer: str) -> float:
    """Return our milliseconds beside a peer's: with the bitmap's if the peer's time has it, too."""
    time = planned(ours, bucket).p50_ms
    return time if peer in GIVEN_BITMAPS else time + ours.filter_ms.get(bucket, {}).get("first_ms", 0.0)


def against(ours: System, peer: System, recall: float) -> dict[Bucket, tuple[Measured | None, bool, float]]:
    """Return for each bucket a peer's best setting, whether we are ahead, and how many times as fast we are.

    Ahead is who is faster, if both reach the recall; if one does, that one; if neither does, who has more.
    """
    found = {}
    for bucket in filtered(ours):
        theirs, mine = peer.best(bucket, recall), planned(ours, bucket)
        ratio = theirs.p50_ms / our_time(ours, bucket, peer.name) if theirs else math.nan
        reached, their_recall = mine.recall >= recall, theirs.recall if theirs else -1.0
        both = reached and their_recall >= recall
        ahead = ratio >= 1 if both else reached or mine.recall > their_recall
        found[bucket] = (theirs, ahead, ratio)
    return found


def peers(ours: System, others: Sequence[System], recall: float) -> str:
    """Return the table of peers: in how many buckets they reach the recall, and who is ahead in how many."""
    rows = []
    for peer in others:
        compared = against(ours, peer, recall)
        reached = [one for one, _, _ in compared.values() if one and one.recall >= recall]
        recalls = [one.recall if one else 0.0 for one, _, _ in compared.values()]
        ratios = [ratio for one, _, ratio in compared.values() if one and one.recall >= recall]
        whole = peer.best(UNFILTERED, recall)
        rows.append(
            (
                peer.name,
                f"{len(reached)} of {len(compared)}",
                f"{statistics.fmean(recalls):.4f}",
                f"{min(recalls):.4f}",
                f"{whole.p50_ms:.3f} at {whole.recall:.3f}" if whole else "",
                f"{statistics.median(ratios):.2f}" if ratios else "",
                f"{min(ratios):.2f}" if ratios else "",
                f"{sum(ahead for _, ahead, _ in compared.values())}",
                f"{sum(not ahead for _, ahead, _ in compared.values())}",
                f"{sum(one is None for one, _, _ in compared.values())}",
            )
        )
    heads = ("system", "reaches it in", "recall@10", "worst", "unfiltered, p50 ms")
    compared_heads = (
        "ours is × as fast, median",
        "least",
        "ours is ahead in",
        "not in",
        "cannot be asked in",
    )
    return table((*heads, *compared_heads), rows)


def peers_by_selectivity(ours: System, others: Sequence[System], recall: float) -> str:
    """Return p50 of all systems by selectivity, with the buckets that reached the recall if not all did."""
    rows = []
    for selectivity in dict.fromkeys(bucket.selectivity for bucket in filtered(ours)):
        held = [bucket for bucket in filtered(ours) if bucket.selectivity == selectivity]
        cells = [cell([planned(ours, bucket) for bucket in held], recall)]
        cells += [cell([peer.best(bucket, recall) for bucket in held], recall) for peer in others]
        rows.append((f"{selectivity:g}", *cells))
    return table(("selectivity", OURS, *(peer.name for peer in others)), rows)


def cell(asked: Iterable[Measured | None], recall: float) -> str:
    held = list(asked)
    reached = [one for one in held if one and one.recall >= recall and one.seconds]
    time = f"{statistics.median(one.p50_ms for one in reached):.2f}" if reached else "–"
    return time if len(reached) == len(held) else f"{time} ({len(reached)} of {len(held)})"


def behind(ours: System, others: Sequence[System], recall: float) -> str:
    """Return every bucket in which a peer is ahead."""
    rows = []
    for bucket in filtered(ours):
        lost = []
        for peer in others:
            theirs, ahead, ratio = against(ours, peer, recall)[bucket]
            if theirs and not ahead:
                lost.append(
                    f"{peer.name} {theirs.recall:.2f} in {theirs.p50_ms:.3f} ms"
                    f" ({setting_text(theirs.setting)}), ours {1 / ratio:.2f} × as long"
                )
        if lost:
            mine = planned(ours, bucket)
            plan = "/".join(dict.fromkeys(plan or "?" for plan in mine.plans))
            rows.append((bucket.name, f"{mine.recall:.2f} in {mine.p50_ms:.3f} ms ({plan})", "; ".join(lost)))
    return table(("bucket", OURS, "ahead of it"), rows) if rows else "Ahead of every peer in every bucket.\n"


def costs(systems: Sequence[System]) -> str:
    """Return what indexes cost to build and to keep."""
    rows = [
        (
            system.name,
            f"{system.costs['build_seconds']:,.1f}",
            f"{system.costs['build_peak_bytes'] / 2**20:,.0f}" if "build_peak_bytes" in system.costs else "",
            f"{system.costs['search_peak_bytes'] / 2**20:,.0f}",
            f"{system.costs['disk_bytes'] / 2**20:,.1f}",
            f"{system.costs['ram_bytes'] / 2**20:,.1f}",
        )
        for system in systems
    ]
    heads = ("system", "build s", "build, peak RSS MiB", "search, peak RSS MiB", "disk MiB")
    return table((*heads, "vectors and index in RAM, computed, MiB"), rows)
