"""What is measured: steps that are run in turn, and what they must show."""

from dataclasses import dataclass, field

from benches.engines import BASE, LAKES, MODULES, RANDOM

# The table of a merge that the next one repeats was merged with this key.
KEY = ("--idempotency-key", "feed-1")
DEFAULT, SIXTEEN = "default", "16 files"
LAYOUTS = (DEFAULT, SIXTEEN)


@dataclass(frozen=True)
class Step:
    """One operation by one engine, from a saved state of its table. `expect` names the figures it must give."""

    engine: str
    op: str
    feed: str = ""
    flags: tuple[str, ...] = ()
    state: str = BASE
    variant: str = ""

    @property
    def label(self) -> str:
        return f"{self.engine}, {self.variant}" if self.variant else self.engine

    @property
    def expect(self) -> str:
        return self.feed or self.state


@dataclass(frozen=True)
class Goal:
    """Something that a step must show: `measure` names a function of verdicts.py."""

    measure: str
    step: str
    limit: float = 0.0
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Steps that are run in turn, round after round. `sf` is the scale factor that its goals are for."""

    name: str
    title: str
    layout: str
    steps: list[Step]
    goals: list[Goal] = field(default_factory=list)
    sf: float = 1
    rounds: int = 1000


def overview(names: list[str]) -> list[Experiment]:
    """Every engine at every operation, in its default layout, beside the floors."""
    floors = [Step(LAKES[0], "floor_keys"), Step(LAKES[0], "floor_copy")]

    def each(op: str, feed: str = "", state: str = BASE) -> list[Step]:
        return [Step(name, op, feed, state=state) for name in names]

    def positions(feed: str) -> list[Step]:
        return [Step(LAKES[0], "floor_positions", feed), *floors]

    return [
        Experiment("load", "load", DEFAULT, each("load", state="")),
        Experiment(
            "random", "1 % random updates, 0.1 % inserts", DEFAULT, each("merge", "random") + positions("random")
        ),
        Experiment("narrow", "updates in 1 % of the key range", DEFAULT, each("merge", "narrow") + positions("narrow")),
        Experiment("wide", "updates in 30 % of the key range", DEFAULT, each("merge", "wide") + positions("wide")),
        Experiment("scattered", "30 % random updates", DEFAULT, _strategies("scattered")),
        Experiment("mixed", "0.7 % updates, 0.2 % deletes, 0.1 % inserts", DEFAULT, each("merge", "mixed")),
        Experiment("q1", "TPC-H Q1", DEFAULT, each("q1")),
        Experiment("q1m", "TPC-H Q1 after the random merge", DEFAULT, each("q1", state=RANDOM)),
    ]


def must_show() -> list[Experiment]:
    """The experiments with goals, each in both layouts."""
    return [
        make(layout) for make in (_random, _narrow, _again, _skip, _wide, _mixed, _large, _q1) for layout in LAYOUTS
    ]


V3, DELTA, V2 = LAKES


def _random(layout: str) -> Experiment:
    steps = [Step(name, "merge", "random") for name in (*LAKES, *MODULES, "ducklake", "deltalake")]
    goals = [Goal("ratio", V2, 1.5, (V3,))]
    for name in (V3, DELTA, *MODULES):
        goals += [Goal("ratio", name, 1.0, ("ducklake",)), Goal("ratio", name, 1 / 15, ("deltalake",))]
        goals += [Goal("peak", name, 400)]
    return Experiment("random", "1 % random updates, 0.1 % inserts", layout, steps, goals)


def _narrow(layout: str) -> Experiment:
    steps = [Step(name, "merge", "narrow") for name in (*LAKES, *MODULES, "ducklake")]
    goals = [Goal("ratio", name, 1.0, ("ducklake",)) for name in (V3, DELTA, *MODULES)]
    if layout == SIXTEEN:  # else there is hardly a file outside
        goals += [Goal("outside", name) for name in LAKES]
    return Experiment("narrow", "updates in 1 % of the key range", layout, steps, goals)


def _again(layout: str) -> Experiment:
    steps = [Step(name, "merge", "random", KEY, RANDOM) for name in LAKES]
    goals = [Goal(measure, name, 0.050) for name in LAKES for measure in ("idle", "processor")]
    return Experiment("again", "the same feed again, with its idempotency key", layout, steps, goals)


def _skip(layout: str) -> Experiment:
    steps = [Step(name, "merge", "random", ("--skip-unchanged",), RANDOM) for name in LAKES]
    steps += [Step(name, "floor_columns", state=RANDOM, variant="columns read") for name in LAKES]
    goals = [Goal("idle", name) for name in LAKES]
    goals += [Goal("ratio", name, 1.3, (f"{name}, columns read",)) for name in LAKES]
    return Experiment("skip", "the same feed again, --skip-unchanged", layout, steps, goals)


FORCED = ("merge-on-read", "copy-on-write")


def _strategies(feed: str) -> list[Step]:
    steps = []
    for name in LAKES:
        steps.append(Step(name, "merge", feed))
        steps += [Step(name, "merge", feed, ("--strategy", strategy), variant=strategy) for strategy in FORCED]
    return steps


def _wide(layout: str) -> Experiment:
    goals = []
    for name in LAKES:
        goals += [Goal("rewrites", name), Goal("ratio", name, 1.1, tuple(f"{name}, {strategy}" for strategy in FORCED))]
    return Experiment("wide", "30 % of rows updated, of one key range", layout, _strategies("wide"), goals)


def _mixed(layout: str) -> Experiment:
    steps = [Step(name, "merge", "mixed") for name in (*LAKES, "deltalake")]
    goals = []
    for name in LAKES:
        goals += [Goal("ratio", name, 1 / 20, ("deltalake",)), Goal("peak", name, 1000)]
    return Experiment("mixed", "1 % mixed updates, deletes, inserts", layout, steps, goals, sf=10)


def _large(layout: str) -> Experiment:
    steps = [Step(name, "merge", "large", ("--memory-limit", "512MB")) for name in LAKES]
    goals = [Goal("right", name) for name in LAKES]
    return Experiment("large", "10 % of rows under --memory-limit 512MB", layout, steps, goals, sf=10, rounds=3)


def _q1(layout: str) -> Experiment:
    steps = [Step(name, "q1", state=state, variant=state) for name in LAKES for state in (BASE, RANDOM)]
    goals = [Goal("ratio", f"{name}, {RANDOM}", 1.15, (f"{name}, {BASE}",)) for name in LAKES]
    return Experiment("q1", "TPC-H Q1 after the random merge, to before it", layout, steps, goals)
