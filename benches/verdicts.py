"""Whether the runs of an experiment show what its goals want.

An experiment is judged from its record, as it stands in the JSON: {"steps": {label: {"failed", "right", "opened",
"report", "runs": [{"wall", "operation", "cpu", "peak_mb", ..}]}}}, with the runs of one round at the same index.
"""

import statistics

from benches.experiments import Experiment, Goal
from benches.measure import Interval, interval

MET, MISSED, OPEN = "met", "not met", "unproven"


def judge(experiment: Experiment, record: dict, sf: float) -> list[dict]:
    """One row per goal: what, value, its bounds, the limit, and the verdict.

    The verdict stands in parentheses if the goal is for another scale factor.
    """
    rows = []
    for goal in experiment.goals:
        row = {"experiment": experiment.title, "layout": experiment.layout, "step": goal.step}
        row |= _judge(goal, record["steps"])
        if sf != experiment.sf and row["verdict"] != OPEN:
            row["verdict"] = f"({row['verdict']})"
        rows.append(row)
    return rows


def _judge(goal: Goal, steps: dict) -> dict:
    step = steps[goal.step]
    what = WHAT[goal.measure](goal)
    if step["failed"]:
        unsupported = step.get("unsupported", False)
        return {"what": what, "verdict": OPEN if unsupported else MISSED, "note": step["failed"]}
    if not step["right"]:
        return {"what": what, "verdict": MISSED, "note": f"wrong answer: {step['wrong']}"}
    failed = [f"{name}: {steps[name]['failed']}" for name in goal.against if steps[name]["failed"]]
    if failed:
        return {"what": what, "verdict": OPEN, "note": "; ".join(failed)}
    if not step["runs"]:
        return {"what": what, "verdict": OPEN, "note": "no rounds were run"}
    return {"what": what} | MEASURES[goal.measure](goal, steps)


# ---- one function per measure


def _ratio(goal: Goal, steps: dict) -> dict:
    """Operation to operation, as both tell it. A command line is its whole process, so `lake` pays for its start, which
    the peer does not; our Python module is timed as the peers are."""
    mine = steps[goal.step]["runs"]
    other = min(goal.against, key=lambda name: statistics.median(own(run) for run in steps[name]["runs"]))
    pairs = list(zip(mine, steps[other]["runs"], strict=False))
    strict = interval([own(run) / own(peer) for run, peer in pairs])
    whole = interval([run["wall"] / peer["wall"] for run, peer in pairs])
    answer = bounded(strict, goal.limit) | {"what": f"time to {other}"}
    if any(peer["operation"] for _, peer in pairs):
        answer["processes"] = whole.mean
    return answer


def own(run: dict) -> float:
    """The operation's own seconds where the engine tells them, else those of its process."""
    return run["operation"] or run["wall"]


def _processor(goal: Goal, steps: dict) -> dict:
    return bounded(interval([run["cpu"] for run in steps[goal.step]["runs"]]), goal.limit)


def _peak(goal: Goal, steps: dict) -> dict:
    most = max(run["peak_mb"] for run in steps[goal.step]["runs"])
    return {"value": most, "limit": goal.limit, "verdict": MET if most < goal.limit else MISSED}


def _outside(goal: Goal, steps: dict) -> dict:
    step = steps[goal.step]
    note = (
        f"{len(step['opened'])} of {step['data_files']} data files opened, {step['outside']} hold no key of the range"
    )
    if step["outside"] == 0:
        return {"verdict": OPEN, "note": f"{note}: this layout has none to leave out"}
    wrong = step["opened_outside"]
    return {"value": wrong, "limit": 0, "verdict": MISSED if wrong else MET, "note": note}


def _idle(goal: Goal, steps: dict) -> dict:
    step = steps[goal.step]
    committed, data = step["report"].get("committed"), len(step["opened"])
    note = f"committed: {str(committed).lower()}, data files opened: {data}"
    return {"verdict": MET if committed is False else MISSED, "note": note}


def _rewrites(goal: Goal, steps: dict) -> dict:
    metrics = steps[goal.step]["report"]["metrics"]
    masked, removed = (metrics.get(f"num_target_files_{verb}", 0) for verb in ("masked", "removed"))
    note = f"{removed} files rewritten, {masked} masked"
    return {"verdict": MET if removed and not masked else MISSED, "note": note}


def _right(goal: Goal, steps: dict) -> dict:
    most = max(run["peak_mb"] for run in steps[goal.step]["runs"])
    return {"verdict": MET, "note": f"peak {most:.0f} MB"}


MEASURES = {
    "ratio": _ratio,
    "processor": _processor,
    "peak": _peak,
    "outside": _outside,
    "idle": _idle,
    "rewrites": _rewrites,
    "right": _right,
}
WHAT = {
    "ratio": lambda goal: f"time to {' or '.join(goal.against)}",
    "processor": lambda goal: "seconds of processor time",
    "peak": lambda goal: "peak MB",
    "outside": lambda goal: "files opened outside the range",
    "idle": lambda goal: "commits nothing",
    "rewrites": lambda goal: "auto picks rewrite",
    "right": lambda goal: "finishes, right answer",
}


def bounded(value: Interval, limit: float) -> dict:
    """Met if the upper end of the interval is."""
    if value.runs < 3:
        return {"value": value.mean, "limit": limit, "verdict": OPEN, "note": "fewer than three pairs bound nothing"}
    return {
        "value": value.mean,
        "low": value.low,
        "high": value.high,
        "limit": limit,
        "runs": value.runs,
        "verdict": MET if value.high <= limit else MISSED,
    }
