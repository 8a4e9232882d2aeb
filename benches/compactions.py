"""What is compacted: many small files, files whose row groups can be copied, one with masked rows, and in Z-order."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benches.compare import Bench, Failed
from benches.data import CACHE, ROOT, Data
from benches.engines import BASE, LAKES, Engine
from benches.experiments import DEFAULT, SIXTEEN
from benches.measure import Run, copy, run
from benches.pieces import Pieces
from benches.trial import Settings, Trial

PEERS = ("ducklake", "deltalake")
# Iceberg and Delta where three tables would show no more than two.
BOTH = LAKES[:2]
MB = 1_000_000
# Where the filters on a table in Z-order begin and how wide they are, as shares of both columns' ranges. The second one
# crosses 5/16 and 5/8, where the curve makes leaps.
PLACES = ((0.05, 0.90), (0.31, 0.62), (0.46, 0.17), (0.71, 0.83), (0.93, 0.38))
WIDTH = 0.02


@dataclass(frozen=True)
class Files:
    """Some files in the place of the data: DuckDB reads them, whoever wrote them."""

    parts: list[Path]


FILES = Engine("files", "files", "")


class Compactions:
    """The tables of both cuts, made at the first call and removed at the end."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.benches: dict[str, Bench] = {}

    def bench(self, name: str) -> Bench:
        """The tables that are made of one cut."""
        if name not in self.benches:
            # More rows make the pieces of `small` larger; those of `large` have their size.
            sf = self.settings.sf if name == "small" else min(self.settings.sf, 1)
            for module, *arguments in (("benches.data", sf), ("benches.pieces", name, sf)):
                subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, check=True)
            known = self.settings.engines
            if name == "large":
                # What is loaded at one go stays in one file; compactions are told another size.
                keep = ("--property", f"write.target-file-size-bytes={4 << 30}")
                lakes = {label: replace(known[label], create=(*known[label].create, *keep)) for label in LAKES}
                known = known | lakes
            folder = CACHE / f"compaction-{name}-sf{sf:g}"
            self.benches[name] = Bench(Pieces(name, sf), known, self.settings.limit, folder)
        return self.benches[name]

    def close(self) -> None:
        for bench in self.benches.values():
            shutil.rmtree(bench.folder, ignore_errors=True)

    # ---- the four

    def small(self) -> Trial:
        """Many small files become a few."""
        bench, target = self.bench("small"), 128 * MB
        rows = int(bench.about["after"]["base"]["rows"])
        count = len(bench.data.parts)
        trial = Trial("small", f"{count} files of {rows // count:,} rows into 128 MB", self.settings.sf >= 1)
        q1 = Data(self.settings.sf).about()["q1"]["base"]
        results: dict[str, Files] = {}

        def step(label: str) -> dict:
            engine = bench.known[label]
            said = self._rehearsed(bench, label, SIXTEEN, BASE, target)
            results[label] = Files(_kept(bench, engine, said["files"]))
            answer = FILES.answer(bench.execute(FILES, FILES.q1(Path(), results[label])))["q1"]
            if answer != q1:
                said["wrong"] = said["wrong"] or f"Q1 gives {answer} instead of {q1}"
            return said

        for label in (*LAKES, *PEERS):
            trial.rehearse(label, partial(step, label))
        runs = {label: partial(_compact, bench, label, SIXTEEN, BASE, target) for label in (*LAKES, *PEERS)}
        trial.rounds({label: lambda one=one: one()[0] for label, one in runs.items()}, self.settings.pairs)
        trial.rounds({label: partial(_q1, bench, files) for label, files in results.items()}, self.settings.pairs, "q1")
        for label in LAKES:
            trial.ratio(label, "ducklake", 1)
            trial.ratio(label, "deltalake", 1 / 1.5)
            trial.at_least(label, "rows per row group, the last of a file left out", _smallest, 500_000)
            trial.at_least(label, "rows per row group, all together", _mean, 500_000)
            for peer in PEERS:
                # Five percent are what equal files differ by from run to run.
                trial.ratio(label, peer, 1.05, "Q1 on the files", "q1")
            trial.at_most(label, "peak MB", lambda _, label=label: trial.peak(label), 400)
        for label, step in trial.steps.items():
            if not step["failed"]:
                trial.notes.append(f"{label} leaves {_described(step)}")
        return trial

    def copies(self) -> Trial:
        """Large row groups are joined into larger files, beside `cp` and `sync` of the same files."""
        bench, target = self.bench("large"), 512 << 20
        count = len(bench.data.parts)
        trial = Trial("copy", f"{count} files of one row group each into 512 MiB", self.settings.sf >= 1)
        for label in BOTH:
            trial.rehearse(label, partial(self._rehearsed, bench, label, SIXTEEN, BASE, target))
            trial.rehearse(_floor(label), partial(_copied, bench, label))
        runs = {label: lambda label=label: _compact(bench, label, SIXTEEN, BASE, target)[0] for label in BOTH}
        runs |= {_floor(label): partial(_cp, bench, label, trial.steps[_floor(label)].get("files")) for label in BOTH}
        trial.rounds(runs, self.settings.pairs)
        for label in BOTH:
            trial.ratio(label, _floor(label), 1.5)
            trial.at_most(label, "row groups decoded", _metric("num_target_row_groups_decoded"), 0)
            trial.at_least(label, "row groups copied", _metric("num_target_row_groups_copied"), count)
            step, floor = trial.steps[label], trial.steps[_floor(label)]
            if not step["failed"] and not floor["failed"]:
                before = f"{floor['mb'] / count:.1f} MB a file, {floor['mb']:,.0f} MB all together"
                trial.notes.append(f"{label}: {before}; leaves {_described(step)}")
        return trial

    def masked(self) -> Trial:
        """One file, of which rows that lie together are deleted."""
        bench, target = self.bench("large"), 2 << 30
        low, high = bench.about["masked"]
        after = bench.about["after"]
        share = 1 - int(after["kept"]["rows"]) / int(after["base"]["rows"])
        title = f"one file of {int(after['base']['rows']):,} rows, {share:.1%} of them deleted side by side"
        trial = Trial("masked", title, self.settings.sf >= 1)
        for label in BOTH:
            trial.rehearse(label, partial(self._masked, bench, label, (low, high), target))
        runs = {
            label: lambda label=label: _compact(bench, label, DEFAULT, "masked", target)[0]
            for label in BOTH
            if not trial.steps[label]["failed"]
        }
        trial.rounds(runs, self.settings.runs)
        for label in BOTH:
            step = trial.steps[label]
            decoded, copied = _metric("num_target_row_groups_decoded"), _metric("num_target_row_groups_copied")
            touched = step.get("touched", [])
            trial.at_most(label, "row groups decoded, of those with deleted rows", decoded, len(touched))
            untouched = len(step.get("before", [])) - len(touched)
            trial.at_least(label, "row groups copied, of those without", copied, untouched)
            # A page index or two may be read beside.
            most = 1.02 * sum(group["bytes"] for group in touched) / MB
            trial.at_most(label, "MB decoded, of those with deleted rows", _metric("bytes_decoded", MB), most)
            if not step["failed"]:
                size = sum(group["bytes"] for group in step["before"]) / MB
                told = ", ".join(f"{name} {step['metrics'].get(name)}" for name in READ)
                trial.notes.append(f"{label}: one file of {size:,.0f} MB in {len(step['before'])} row groups; {told}")
        return trial

    def _masked(self, bench: Bench, label: str, masked: tuple[int, int], target: int) -> dict:
        engine, live = bench.known[label], bench.live(bench.known[label])
        copy(bench.state(engine, DEFAULT, BASE), live)
        files = bench.oracle("named", engine.kind, live)
        if len(files) != 1:
            raise Failed(f"the table was loaded into {len(files)} files instead of one")
        (before,) = bench.oracle("groups", *files)
        where = f"l_orderkey BETWEEN {masked[0]} AND {masked[1]}"
        command = [self.settings.lake, "delete", live, "--where", where, "--strategy", "merge-on-read", "--json"]
        bench.execute(engine, command)
        saved = bench.folder / "states" / engine.slug / "masked"
        copy(live, saved)
        bench.states[(label, DEFAULT, "masked")] = saved
        touched = [group for group in before if group["low"] <= masked[1] and group["high"] >= masked[0]]
        said = self._rehearsed(bench, label, DEFAULT, "masked", target, expect="kept")
        return said | {"before": before, "touched": touched}

    def zorder(self) -> Trial:
        """Small files in the order of one key become files in Z-order of two other columns."""
        bench, sf = self.bench("small"), self.settings.sf
        by, target = ("l_partkey", "l_suppkey"), int(2 * MB * sf)
        trial = Trial("zorder", f"{', '.join(by)} into {target / MB:g} MB", sf >= 1)
        limit = ("--memory-limit", "1GB")
        # Keys of parts and suppliers, all of them, by TPC-H.
        most = (200_000 * sf, 10_000 * sf)
        arguments = (target, by, limit)

        def step(label: str) -> dict:
            engine = bench.known[label]
            said = self._rehearsed(bench, label, SIXTEEN, BASE, *arguments)
            if label not in BOTH:
                return said
            said |= {"left": [], "found": []}
            for place in PLACES:
                ranges = [
                    f"{column} BETWEEN {top * start:.0f} AND {top * (start + WIDTH):.0f}"
                    for column, top, start in zip(by, most, place, strict=True)
                ]
                where, live = " AND ".join(ranges), bench.live(engine)
                asked = bench.execute(engine, [self.settings.lake, "files", live, "--where", where, "--json"])
                left = [str(live / file["path"]) for file in engine.answer(asked)["report"]["files"]]
                wanted = bench.oracle("count", where, *said["files"])
                got = bench.oracle("count", where, *left) if left else 0
                if wanted != got:
                    said["wrong"] = said["wrong"] or f"{got} rows in the files left, not {wanted}, for {where}"
                said["left"].append(len(left))
                said["found"].append(wanted)
            return said

        labels = (*BOTH, "deltalake")
        for label in labels:
            trial.rehearse(label, partial(step, label))
        runs = {label: lambda label=label: _compact(bench, label, SIXTEEN, BASE, *arguments)[0] for label in labels}
        trial.rounds(runs, self.settings.runs)
        for label in BOTH:
            trial.finished(label)
            trial.at_most(label, "percent of the files that the worst filter leaves", _share_left, 10)
            trial.ratio(label, "deltalake", None)
            record = trial.steps[label]
            if not record["failed"]:
                trial.notes.append(
                    f"{label}: filters leave {record['left']} of {len(record['files'])} files, with "
                    f"{min(record['found']):,} to {max(record['found']):,} rows; "
                    f"peak {trial.peak(label) or 0:.0f} MB under {' '.join(limit)}"
                )
        return trial

    def _rehearsed(
        self,
        bench: Bench,
        label: str,
        layout: str,
        state: str,
        target: int,
        by: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        expect: str = BASE,
    ) -> dict:
        """DuckDB must find the same rows before and after; what was said, and the files that came out of it."""
        engine = bench.known[label]
        wanted, live = bench.about["after"][expect], bench.live(engine)
        copy(bench.state(engine, layout, state), live)
        before = bench.oracle("check", engine.kind, live)
        _, said = _compact(bench, label, layout, state, target, by, flags)
        after = bench.oracle("check", engine.kind, live)
        wrong = [
            f"{name} {when} {got[name]} instead of {wanted[name]}"
            for when, got in (("before", before), ("after", after))
            for name in wanted
            if got[name] != wanted[name]
        ]
        files = bench.oracle("named", engine.kind, live)
        report = said.get("report")
        return {
            "wrong": ", ".join(wrong) or None,
            "files": files,
            "groups": bench.oracle("groups", *files),
            "mb": sum(os.path.getsize(file) for file in files) / MB,
            "metrics": report.get("metrics", {}) if isinstance(report, dict) else {},
        }


READ = ("num_target_row_groups_copied", "num_target_row_groups_decoded", "bytes_read", "bytes_copied", "bytes_decoded")


def _compact(
    bench: Bench,
    label: str,
    layout: str,
    state: str,
    target: int,
    by: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> tuple[Run, dict]:
    engine = bench.known[label]
    live = bench.live(engine)
    copy(bench.state(engine, layout, state), live)
    done = bench.execute(engine, engine.compact(live, bench.data, target, by, flags))
    return done, engine.answer(done)


def _q1(bench: Bench, files: Files) -> Run:
    done = bench.execute(FILES, FILES.q1(Path(), files))
    FILES.answer(done)
    return done


def _kept(bench: Bench, engine: Engine, files: list[str]) -> list[Path]:
    """The files of a result, under other names: the table is put back before the next run."""
    folder = bench.folder / "results" / engine.slug
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = [folder / f"{number:04}.parquet" for number in range(len(files))]
    for file, name in zip(sorted(files), kept, strict=True):
        os.link(file, name)
    return kept


# ---- the floor


def _floor(label: str) -> str:
    return f"cp of {label}"


def _copied(bench: Bench, label: str) -> dict:
    engine = bench.known[label]
    copy(bench.state(engine, SIXTEEN, BASE), bench.live(engine))
    files = bench.oracle("named", engine.kind, bench.live(engine))
    _cp(bench, label, files)
    return {"files": files, "mb": sum(os.path.getsize(file) for file in files) / MB}


def _cp(bench: Bench, label: str, files: list[str]) -> Run:
    """Copies the files and syncs the copies."""
    engine, target = bench.known[label], bench.folder / "copies"
    copy(bench.state(engine, SIXTEEN, BASE), bench.live(engine))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    done = run(["sh", "-c", 'cp "$@" "$0" && sync "$0"/*', target, *files], bench.limit, ROOT)
    shutil.rmtree(target)
    if done.code:
        raise Failed(f"cp: {done.stderr.strip()[-200:]}")
    return done


# ---- figures of a record


def _metric(name: str, unit: float = 1):
    def value(record: dict) -> float | None:
        metrics = record.get("metrics", {})
        # A version that counts row groups leaves out what is nothing.
        told = metrics.get(name, 0 if "num_target_row_groups_decoded" in metrics else None)
        return None if told is None else told / unit

    return value


def _share_left(record: dict) -> float:
    return 100 * max(record["left"]) / len(record["files"])


def _smallest(record: dict) -> float:
    full = [group["rows"] for file in record["groups"] for group in file[:-1]]
    return min(full) if full else _mean(record)


def _mean(record: dict) -> float:
    rows = [group["rows"] for file in record["groups"] for group in file]
    return sum(rows) / len(rows)


def _described(record: dict) -> str:
    groups = [len(file) for file in record["groups"]]
    size = f"{_mean(record):,.0f} rows each on average"
    return f"{len(groups)} files of {record['mb']:,.0f} MB all together, {sum(groups)} row groups, {size}"
