"""The results as a page of Markdown and as a chart: `python -m benches.table target/bench/sf1` makes them again."""

import json
import statistics
import sys
from pathlib import Path

from benches.engines import LAKES
from benches.experiments import LAYOUTS
from benches.verdicts import MET, own

NOISY = 0.1


def write(result: dict, folder: Path) -> None:
    """Prints the tables, and writes results.md and chart.svg beside results.json."""
    text = page(result)
    print(text)
    (folder / "results.md").write_text(text)
    try:
        chart(result, folder / "chart.svg")
    except ImportError:
        print("no chart: matplotlib is not installed", file=sys.stderr)


def page(result: dict) -> str:
    about = result["about"]
    lines = [
        f"# SF{result['sf']:g}: {int(result['data']['after']['base']['rows']):,} rows",
        "",
        f"{about['time']}, {about['processors']} processors, {about['memory_gb']} GiB, {about['system']}; "
        f"{about['lake']} ({about['commit']}); "
        + ", ".join(f"{name} {number}" for name, number in about["packages"].items()),
    ]
    lines += [f"\nNot run: {name}: {why}." for name, why in result["left_out"].items()]
    if result["overview"]:
        lines += ["", *_overview(result["overview"])]
    if result["goals"]:
        lines += ["", *_goals(result)]
    lines += ["", _noise(result)]
    return "\n".join(lines) + "\n"


# ---- the overview


def _overview(experiments: list[dict]) -> list[str]:
    names = list(dict.fromkeys(name for record in experiments for name in record["steps"]))
    lines = [
        f"## Every engine, median of {max(record['rounds'] for record in experiments)}",
        "",
        "Seconds of the whole process (of the operation alone), peak MB, MB on disk before → after, and how many times "
        f"as long the operation alone took as the whole process of {LAKES[0]}.",
        "",
        "| | " + " | ".join(record["title"] for record in experiments) + " |",
        "| --- |" + " --- |" * len(experiments),
    ]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(_cell(record, name) for record in experiments) + " |")
    return lines


def _cell(record: dict, name: str) -> str:
    step = record["steps"].get(name)
    if step is None:
        return ""
    if step["failed"]:
        return step["failed"].replace("|", "/")
    if not step["runs"]:
        return "not run"
    alone = f" ({_median(step, own):.3f})" if step["runs"][0]["operation"] else ""
    text = f"{_median(step, lambda run: run['wall']):.3f}{alone} s, {_median(step, lambda run: run['peak_mb']):.0f} MB"
    if step["mb_after"] != step["mb_before"]:
        text += f", {step['mb_before']:.0f} → {step['mb_after']:.0f}"
    ours = record["steps"].get(LAKES[0])
    if ours and ours["runs"]:
        text += f", **×{_median(step, own) / _median(ours, lambda run: run['wall']):.2f}**"
    return text if step["right"] else f"{text}, WRONG: {step['wrong']}"


def _median(step: dict, figure) -> float:
    return statistics.median(figure(run) for run in step["runs"])


# ---- what must be shown


def _goals(result: dict) -> list[str]:
    lines = [
        "## What must be shown",
        "",
        "Goals met of those there are; in parentheses, those for another scale factor.",
        "",
        "| | " + " | ".join(LAYOUTS) + " |",
        "| --- |" + " --- |" * len(LAYOUTS),
    ]
    for name in dict.fromkeys(row["experiment"] for row in result["goals"]):
        lines.append(f"| {name} | " + " | ".join(_count(result["goals"], name, layout) for layout in LAYOUTS) + " |")
    lines += [
        "",
        "A ratio is the whole process of `lake`, or the operation of our Python module (`lakehouse`), to the peer's "
        "operation alone: its geometric mean over the pairs with the 95 % interval; the upper bound must meet the "
        "limit. Last, whole process to whole process.",
        "",
        "| | layout | by | what | measured | limit | verdict | processes | note |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["goals"]:
        cells = [row["experiment"], row["layout"], row["step"], row["what"], _measured(row)]
        cells += [f"{row['limit']:.4g}" if "limit" in row else "", row["verdict"]]
        cells += [f"{row['processes']:.3g}" if "processes" in row else "", row.get("note", "").replace("|", "/")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_medians(result["must_show"])]
    return lines


def _count(goals: list[dict], name: str, layout: str) -> str:
    verdicts = [row["verdict"] for row in goals if (row["experiment"], row["layout"]) == (name, layout)]
    if not verdicts:
        return "not run"
    if set(verdicts) == {MET}:
        return f"**met**, all {len(verdicts)}"
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))


def _measured(row: dict) -> str:
    if "low" in row:
        return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}], n={row['runs']}"
    return f"{row['value']:.4g}" if "value" in row else ""


def _medians(experiments: list[dict]) -> list[str]:
    lines = [
        "| | layout | by | process s | operation s | processor s | peak MB | disk MB | files opened | lake says |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in experiments:
        for name, step in record["steps"].items():
            if not step["runs"]:
                continue
            figures = [_median(step, lambda run, key=key: run[key]) for key in ("wall", "cpu", "peak_mb")]
            alone = f"{_median(step, own):.3f}" if step["runs"][0]["operation"] else ""
            said = _said(step["report"])
            lines.append(
                f"| {record['title']} | {record['layout']} | {name} | {figures[0]:.3f} | {alone} | {figures[1]:.3f} "
                f"| {figures[2]:.0f} | {step['mb_before']:.1f} → {step['mb_after']:.1f} "
                f"| {len(step['opened'])} of {step['data_files']} | {said} |"
            )
    return lines


def _said(report) -> str:
    metrics = report.get("metrics") if isinstance(report, dict) else None
    if not metrics:
        return ""
    verbs = {"scanned": "scanned", "masked": "masked", "removed": "rewritten", "added": "added"}
    counts = [(verb, metrics.get(f"num_target_files_{key}")) for key, verb in verbs.items()]
    return ", ".join(f"{count} {verb}" for verb, count in counts if count)


def _noise(result: dict) -> str:
    runs = [
        run for part in ("overview", "must_show") for record in result[part] for step in record["steps"].values()
        for run in step["runs"]
    ]  # fmt: skip
    noisy = sum(run["foreign"] > NOISY for run in runs)
    if not noisy:
        return f"None of {len(runs)} runs had company: other processes took under a tenth of the processors."
    return (
        f"**{noisy} of {len(runs)} runs had company**: other processes took over a tenth of the processors meanwhile. "
        "Measure again on a quiet machine."
    )


# ---- the chart


def chart(result: dict, file: Path) -> None:
    """Two panels, ratios on a logarithmic axis: every engine to ours, and the goals with their intervals."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    bars = _bars(result["overview"])
    goals = [row for row in result["goals"] if "high" in row and row["what"].startswith("time")]
    panels = [len(part) for part in (bars, goals) if part]
    if not panels:
        return
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(11, 1.6 + 0.24 * sum(panels)), height_ratios=panels, squeeze=False
    )
    axes = [axis for (axis,) in axes]
    if bars:
        axis = axes.pop(0)
        positions = range(len(bars), 0, -1)
        colours = [
            "tab:blue" if name in LAKES else "tab:gray" if "floor" in name else "tab:orange" for _, name, _ in bars
        ]
        axis.barh(positions, [ratio - 1 for _, _, ratio in bars], left=1, color=colours)
        axis.set_yticks(positions, [f"{title}: {name}" for title, name, _ in bars], fontsize=7)
        axis.set_title(f"time of the operation ÷ whole process of {LAKES[0]} (right: slower)", fontsize=9)
    if goals:
        axis = axes.pop(0)
        positions = range(len(goals), 0, -1)
        values = [row["value"] for row in goals]
        errors = [[row["value"] - row["low"] for row in goals], [row["high"] - row["value"] for row in goals]]
        axis.errorbar(values, positions, xerr=errors, fmt="none", ecolor="black", capsize=2, linewidth=1)
        colours = ["tab:green" if row["verdict"].strip("()") == MET else "tab:red" for row in goals]
        axis.scatter(values, positions, color=colours, s=14, zorder=3)
        axis.scatter([row["limit"] for row in goals], positions, marker="|", color="tab:blue", s=60, zorder=2)
        names = [f"{row['experiment']}, {row['layout']}: {row['step']}, {row['what']}" for row in goals]
        axis.set_yticks(positions, names, fontsize=7)
        axis.set_title("what must be shown: ratio, its 95 % interval, and the limit (blue)", fontsize=9)
    for axis in figure.axes:
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=0.6)
        axis.grid(axis="x", which="both", linewidth=0.2)
    figure.suptitle(f"TPC-H lineitem SF{result['sf']:g}", fontsize=10)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def _bars(experiments: list[dict]) -> list[tuple[str, str, float]]:
    found = []
    for record in experiments:
        ours = record["steps"].get(LAKES[0])
        if not ours or not ours["runs"]:
            continue
        base = _median(ours, lambda run: run["wall"])
        for name, step in record["steps"].items():
            if step["runs"] and name != LAKES[0]:
                found.append((record["title"], name, _median(step, own) / base))
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(json.loads((target / "results.json").read_text()), target)
