"""The comparison's own arithmetic: what it says must follow from what was measured. No engine runs here."""

import math
import sys

import pytest

from benches.experiments import DEFAULT, LAYOUTS, Experiment, Goal, Step, must_show, overview
from benches.measure import copy, files, interval, opened, run, student
from benches.verdicts import judge


def record(runs, **more):
    base = {"operation": None, "cpu": 0.01, "peak_mb": 100.0, "foreign": 0.0}
    return {"failed": None, "right": True, "report": {}, "opened": [], "runs": [base | one for one in runs]} | more


def verdict(goal, steps, sf=1.0):
    (row,) = judge(Experiment("x", "x", DEFAULT, [], [goal]), {"steps": steps}, sf)
    return row


def test_an_interval_is_students_on_the_logarithms():
    # exp of: mean 0, deviation 1 of three values; t = 4.303
    found = interval([math.exp(-1), 1.0, math.exp(1)])
    assert found.mean == pytest.approx(1)
    assert found.high == pytest.approx(math.exp(4.303 / math.sqrt(3)))
    assert found.low == pytest.approx(1 / found.high)
    assert interval([1.0, 1.0]).high == math.inf


@pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.303), (6, 2.447), (7, 2.365), (10, 2.228), (30, 2.042)])
def test_students_quantile_is_that_of_the_tables(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, abs=0.002)


def test_a_ratio_takes_the_peers_operation_alone_and_is_judged_by_its_upper_bound():
    mine = record([{"wall": 1.0}, {"wall": 1.1}, {"wall": 0.9}])
    peer = record([{"wall": 9.0, "operation": 1.0}] * 3)
    row = verdict(Goal("ratio", "lake", 1.0, ("peer",)), {"lake": mine, "peer": peer})
    assert row["value"] == pytest.approx(1, abs=0.01) and row["processes"] == pytest.approx(1 / 9, abs=0.01)
    assert row["verdict"] == "not met"  # the mean is at the limit, the bound is over it
    assert verdict(Goal("ratio", "lake", 1.5, ("peer",)), {"lake": mine, "peer": peer})["verdict"] == "met"


def test_two_pairs_prove_nothing():
    steps = {"lake": record([{"wall": 1.0}] * 2), "peer": record([{"wall": 9.0}] * 2)}
    assert verdict(Goal("ratio", "lake", 1.0, ("peer",)), steps)["verdict"] == "unproven"


def test_of_two_rivals_the_faster_counts():
    steps = {
        "lake": record([{"wall": 1.0}] * 3),
        "slow": record([{"wall": 9.0}] * 3),
        "fast": record([{"wall": 0.5}] * 3),
    }
    row = verdict(Goal("ratio", "lake", 1.1, ("slow", "fast")), steps)
    assert row["what"] == "time to fast" and row["verdict"] == "not met"


def test_a_wrong_answer_meets_no_goal_however_fast():
    steps = {"lake": record([{"wall": 1.0}] * 3, right=False, wrong="rows 1 instead of 2")}
    row = verdict(Goal("peak", "lake", 400), steps)
    assert row["verdict"] == "not met" and "rows 1 instead of 2" in row["note"]


def test_what_the_binary_does_not_know_is_unproven_and_what_it_fails_at_is_not_met():
    unknown = {"lake": record([], failed="unexpected argument", unsupported=True)}
    assert verdict(Goal("peak", "lake", 400), unknown)["verdict"] == "unproven"
    broken = {"lake": record([], failed="ended by signal 9", unsupported=False)}
    assert verdict(Goal("peak", "lake", 400), broken)["verdict"] == "not met"


def test_a_peer_that_fails_proves_nothing():
    steps = {"lake": record([{"wall": 1.0}] * 3), "peer": record([], failed="ended by signal 11")}
    assert verdict(Goal("ratio", "lake", 1.0, ("peer",)), steps)["verdict"] == "unproven"


def test_another_scale_factor_puts_the_verdict_in_parentheses():
    steps = {"lake": record([{"wall": 1.0}] * 3)}
    assert verdict(Goal("peak", "lake", 400), steps, sf=0.01)["verdict"] == "(met)"


def test_one_file_opened_outside_the_range_is_one_too_many():
    narrow = {"opened": ["a"], "data_files": 16, "outside": 15}
    goal = Goal("outside", "lake")
    assert verdict(goal, {"lake": record([{"wall": 1.0}], opened_outside=0, **narrow)})["verdict"] == "met"
    assert verdict(goal, {"lake": record([{"wall": 1.0}], opened_outside=1, **narrow)})["verdict"] == "not met"


def test_every_goal_names_steps_that_are_run():
    for experiment in must_show():
        labels = {step.label for step in experiment.steps}
        assert len(labels) == len(experiment.steps)
        for goal in experiment.goals:
            assert {goal.step, *goal.against} <= labels
    assert {experiment.layout for experiment in must_show()} == set(LAYOUTS)
    assert all(isinstance(step, Step) for experiment in overview(["lake delta"]) for step in experiment.steps)


def test_a_process_is_measured_by_what_it_used(tmp_path):
    work = (
        "import time; block = bytearray(64 << 20); end = time.process_time() + 0.2\nwhile time.process_time() < end: 0"
    )
    done = run([sys.executable, "-c", work], 30, tmp_path)
    assert done.code == 0 and done.cpu >= 0.2 and done.wall > 0.1 and done.peak_mb > 64


def test_a_process_is_stopped_at_its_limit(tmp_path):
    done = run([sys.executable, "-c", "import time; time.sleep(60)"], 0.2, tmp_path)
    assert done.code == -9 and done.wall < 30


def test_the_kernel_says_which_files_were_opened(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/a.parquet", "in/b.parquet"):
        (tmp_path / name).write_text("x")
    with opened(tmp_path) as seen:
        run([sys.executable, "-c", "open('in/a.parquet').read()"], 30, tmp_path)
    assert seen == {"in/a.parquet"}


def test_a_saved_state_is_not_changed_by_what_is_done_to_the_copy(tmp_path):
    saved, live = tmp_path / "saved", tmp_path / "live"
    saved.mkdir()
    (saved / "data.parquet").write_text("rows")
    (saved / "log.json").write_text("1")
    copy(saved, live)
    (live / "log.json").write_text("22")
    (live / "data.parquet").unlink()
    assert files(saved) == {"data.parquet": 4, "log.json": 1}
