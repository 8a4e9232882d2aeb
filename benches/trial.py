"""One part of the compaction bench: its steps, run in turn, and what they have to show; as the JSON has it."""

import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benches.compare import Failed
from benches.engines import Engine
from benches.measure import Run, interval
from benches.verdicts import MET, MISSED, OPEN, bounded, own

NOISY = 0.1


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    lake: Path
    engines: dict[str, Engine]
    sf: float
    runs: int
    pairs: int
    commits: int
    limit: float


class Trial:
    """A title, a record for each step (`failed`, `right`, `runs` ..), verdicts, and what else is worth saying."""

    def __init__(self, name: str, title: str, full_size: bool):
        self.name, self.title, self.full_size = name, title, full_size
        self.steps: dict[str, dict] = {}
        self.verdicts: list[dict] = []
        self.notes: list[str] = []

    def rehearse(self, label: str, step: Callable[[], dict]) -> None:
        """A run that is not timed: warms the page cache, checks the answer. What it returns is kept in the record."""
        print(".", end="", file=sys.stderr, flush=True)
        self.steps[label] = {"failed": None, "unsupported": False, "wrong": None, "runs": []}
        try:
            self.steps[label] |= step()
        except Failed as failed:
            self.steps[label] |= {"failed": str(failed), "unsupported": failed.unsupported}

    def rounds(self, steps: dict[str, Callable[[], Run]], number: int, into: str = "runs") -> None:
        """Runs all steps whose rehearsal went well, each time in another order."""
        for turn in range(number):
            print("-", end="", file=sys.stderr, flush=True)
            for label in random.Random(turn).sample(list(steps), len(steps)):
                step = self.steps[label]
                if step["failed"]:
                    continue
                try:
                    step.setdefault(into, []).append(steps[label]().record())
                except Failed as failed:
                    step |= {"failed": str(failed), "unsupported": failed.unsupported}

    def ratio(self, label: str, other: str, limit: float | None, what: str = "time", key: str = "runs") -> None:
        """Operation to operation where the engine tells its own seconds, else process; `lake` pays for its start."""
        told = f"{label}: {what} to {other}"
        if not self._sound(told, label, other):
            return
        pairs = list(zip(self.steps[label].get(key, []), self.steps[other].get(key, []), strict=False))
        if not pairs:
            self.verdict(told, OPEN, note="no rounds were run")
            return
        ratios = interval([own(mine) / own(peer) for mine, peer in pairs])
        medians = [statistics.median(map(own, side)) for side in zip(*pairs, strict=True)]
        note = f"{medians[0]:.3f} s to {medians[1]:.3f} s"
        if limit is None:
            self.notes.append(f"{told} {ratios.mean:.2f} [{ratios.low:.2f}, {ratios.high:.2f}], {note}")
        else:
            self.verdicts.append({"what": told, "note": note} | bounded(ratios, limit))

    def at_most(
        self, label: str, what: str, value: Callable[[dict], float | None], limit: float, note: str = ""
    ) -> None:
        """A figure of a step's record that has an upper limit; unproven where it is not told."""
        self._figure(label, what, value, limit, note, lambda got: got <= limit)

    def at_least(self, label: str, what: str, value: Callable[[dict], float | None], limit: float) -> None:
        """The same with a lower limit."""
        self._figure(label, f"{what} (at least)", value, limit, "", lambda got: got >= limit)

    def finished(self, label: str) -> None:
        """It ends, with the right answer."""
        told = f"{label}: ends, same rows before and after"
        if self._sound(told, label):
            self.verdict(told, MET)

    def verdict(self, what: str, verdict: str, **more) -> None:
        self.verdicts.append({"what": what, "verdict": verdict} | more)

    def peak(self, label: str) -> float | None:
        """The largest peak memory of the timed runs, in MB."""
        return max((run["peak_mb"] for run in self.steps[label]["runs"]), default=None)

    def record(self) -> dict:
        """For the JSON; verdicts stand in parentheses if the data are smaller than what the goals are for."""
        for row in self.verdicts:
            if not self.full_size and row["verdict"] in (MET, MISSED):
                row["verdict"] = f"({row['verdict']})"
        return {"name": self.name, "title": self.title} | {
            part: getattr(self, part) for part in ("steps", "verdicts", "notes")
        }

    def page(self) -> str:
        """As it is printed."""
        lines = [f"{self.name}: {self.title}"]
        for label, step in self.steps.items():
            runs = step["runs"]
            if step["failed"] or step["wrong"]:
                lines.append(f"  {label:24}{step['failed'] or 'WRONG: ' + step['wrong']}")
            elif runs:
                figures = [statistics.median(run[key] for run in runs) for key in ("wall", "cpu")]
                alone = f" ({statistics.median(map(own, runs)):.3f} alone)" if runs[0]["operation"] else ""
                text = f"{figures[0]:.3f} s{alone}, {figures[1]:.2f} s of processors, {self.peak(label):.0f} MB"
                lines.append(f"  {label:24}{text}, n={len(runs)}")
        lines += [f"  {note}" for note in self.notes]
        for row in self.verdicts:
            lines.append(f"  {row['verdict']:10}{row['what']}{_measured(row)}")
        return "\n".join(lines)

    def noisy(self) -> tuple[int, int]:
        """Runs that had company, of all."""
        runs = [run for step in self.steps.values() for run in (*step["runs"], *step.get("q1", []))]
        looks = [look for step in self.steps.values() for look in step.get("looks", {}).values()]
        runs += [run for look in looks for run in look["show"]]
        return sum(run["foreign"] > NOISY for run in runs), len(runs)

    def _sound(self, what: str, *labels: str) -> bool:
        """Whether these steps went well; else the verdict is told here."""
        for number, label in enumerate(labels):
            step = self.steps[label]
            if step["failed"]:
                mine = number == 0 and not step["unsupported"]
                self.verdict(what, MISSED if mine else OPEN, note=f"{label}: {step['failed']}")
                return False
            if step["wrong"]:
                self.verdict(what, OPEN if number else MISSED, note=f"{label}: wrong answer")
                return False
        return True

    def _figure(self, label: str, what: str, value, limit: float, note: str, fits) -> None:
        told = f"{label}: {what}"
        if not self._sound(told, label):
            return
        got = value(self.steps[label])
        if got is None:
            self.verdict(told, OPEN, limit=limit, note=note or "not told, or no rounds were run")
        else:
            self.verdict(told, MET if fits(got) else MISSED, value=got, limit=limit, note=note)


def _measured(row: dict) -> str:
    text = f": {row['value']:,.4g}" if "value" in row else ""
    if "low" in row:
        text += f" [{row['low']:.3g}, {row['high']:.3g}], n={row['runs']}"
    text += f" of {row['limit']:,.4g}" if "limit" in row else ""
    return text + (f"; {row['note']}" if row.get("note") else "")
