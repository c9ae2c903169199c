"""Turn what was measured into Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

RATIO_TO = "compactds"


def cheapest(settings: Sequence[dict[str, Any]], recall: float) -> dict[str, Any] | None:
    """Return the setting with the most queries a second of those that reach `recall`, or None."""
    able = [measured for measured in settings if measured["recall"] >= recall]
    return max(able, key=lambda measured: measured["queries_per_second"], default=None)


def at_recall(systems: Sequence[dict[str, Any]], recall: float) -> str:
    """Return the table of each system's cheapest setting that reaches `recall`."""
    found = {system["name"]: cheapest(system["settings"], recall) for system in systems}
    ours = found.get(RATIO_TO)
    rows = []
    for system in systems:
        best = found[system["name"]]
        if best is None:
            most = max((measured["recall"] for measured in system["settings"]), default=0.0)
            rows.append((system["name"], "none", f"at most {most:.4f}", "", "", "", "", ram(system)))
            continue
        rate = best["queries_per_second"]
        ratio = f"{ours['queries_per_second'] / rate:.2f}" if ours else ""
        rows.append(
            (
                system["name"],
                setting_text(best["setting"]),
                f"{best['recall']:.4f}",
                f"{rate:,.0f}",
                ratio,
                f"{best['p50_ms']:.3f}",
                f"{best['p99_ms']:.3f}",
                ram(system),
            )
        )
    heads = ("system", "setting", "recall@10", "queries/s", f"{RATIO_TO} is × as fast", "p50 ms", "p99 ms")
    return table((*heads, "RAM, bytes a vector"), rows)


def ram(system: dict[str, Any]) -> str:
    """Return the RAM a row takes, computed."""
    return f"{system['ram_bytes'] / system['rows']:,.0f}"


def costs(systems: Sequence[dict[str, Any]]) -> str:
    """Return the table of what each index costs to build and to keep."""
    heads = (
        "system",
        "build s",
        "open s",
        "RAM, computed",
        "RAM, measured",
        "mapped, opened",
        "mapped, searched",
        "disk",
    )
    rows = []
    for system in systems:
        sizes = (
            system["ram_bytes"],
            system["searched"]["own_bytes"],
            system["opened"]["mapped_bytes"],
            system["searched"]["mapped_bytes"],
            system["disk_bytes"],
        )
        seconds = (f"{system['build_seconds']:,.1f}", f"{system['open_seconds']:,.2f}")
        rows.append((system["name"], *seconds, *(f"{size / system['rows']:,.0f}" for size in sizes)))
    return table(heads, rows)


def batches(systems: Sequence[dict[str, Any]]) -> str:
    """Return the table of batches against one at a time: medians, and quartiles of how many times as fast."""
    heads = ("system", "setting", "one at a time", "batch, two threads", "batch is × as fast", "quartiles")
    rows = []
    for system in systems:
        for measured in system["batches"]:
            one, many = np.median(measured["pairs"], axis=0)
            low, middle, high = np.percentile([many / one for one, many in measured["pairs"]], (25, 50, 75))
            how, quartiles = setting_text(measured["setting"]), f"{low:.2f}–{high:.2f}"
            rows.append((system["name"], how, f"{one:,.0f}", f"{many:,.0f}", f"{middle:.2f}", quartiles))
    return table(heads, rows)


def curves(systems: Sequence[dict[str, Any]]) -> str:
    """Return the table of all settings worth having: each the fastest of those that reach its recall."""
    rows = []
    for system in systems:
        points: list[str] = []
        most = -1.0
        ordered = sorted(system["settings"], key=lambda measured: -measured["queries_per_second"])
        for measured in ordered:
            if measured["recall"] > most:
                most = measured["recall"]
                points.append(f"{most:.3f} → {measured['queries_per_second']:,.0f}")
        rows.append((system["name"], " · ".join(points)))
    return table(("system", "recall@10 → queries/s"), rows)


def asked(systems: Sequence[dict[str, Any]]) -> str:
    """Return the table of the recall asked for and the recall given, of systems that can be asked."""
    rows = [
        (system["name"], f"{measured['setting']['recall']:g}", f"{measured['recall']:.4f}")
        for system in systems
        for measured in system["settings"]
        if "recall" in measured["setting"]
    ]
    return table(("system", "recall asked for", "recall@10 given"), rows) if rows else ""


def setting_text(setting: dict[str, Any]) -> str:
    """Return a setting in words."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
