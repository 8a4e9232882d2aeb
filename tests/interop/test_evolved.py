"""Tables whose columns and partitioning random programs changed on the way, read by engines that we did not write."""

import subprocess
import sys

import pytest

from tests.interop.evolved import KINDS, ROOT, Evolved, left
from tests.interop.readers import CANNOT, READERS, check_one

SHOWN = 5
READ_BY = [
    (evolving, form, reader)
    for evolving, form in KINDS
    for reader in READERS["delta" if form == "delta" else "iceberg"]
]
ALONE = """
import sys
from pathlib import Path
from tests.interop.test_evolved import Evolved, check
print("begun", flush=True)
check(Evolved(Path(sys.argv[1])), sys.argv[2])
"""


def check(table: Evolved, reader: str) -> None:
    """Fails unless the reader of that name finds the columns and rows that the model has."""
    check_one(table.format, reader, table.path, table.expected, hidden=table.hidden)


def check_alone(table: Evolved, reader: str) -> None:
    """The same in a process of its own, which the reader may bring down."""
    command = [sys.executable, "-c", ALONE, str(table.folder), reader]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "begun" not in done.stdout:
        # Not an exception that a reader could have raised.
        pytest.fail(f"{reader} was not asked: {done.stderr}")
    if done.returncode:
        raise AssertionError(f"{reader} ended with {done.returncode}: {done.stderr[-1000:]}")


@pytest.mark.parametrize(("evolving", "form", "reader"), READ_BY)
def test_every_reader_reads_what_random_programs_of_evolution_left(evolving, form, reader):
    wrong, read, left_out = [], 0, 0
    # Features that the reader is known not to read, with a table that shows it or not. Once one shows it the others are
    # left out; a table may be read well by chance, all of them only by a reader that has learned it.
    well, badly = set(), set()
    for table in left(evolving, form):
        cannot = {feature for feature in table.features if (reader, feature) in CANNOT}
        if cannot & badly:
            left_out += 1
            continue
        try:
            (check_alone if cannot else check)(table, reader)
        except Exception as error:
            if cannot:
                badly |= cannot
                left_out += 1
            else:
                wrong.append(f"{table}: {error}")
        else:
            well |= cannot
            read += 1
    print(
        f"{reader}, {evolving}, {form}: {read} read, {len(wrong)} wrongly, {left_out} left out for {badly or 'nothing'}"
    )
    assert not wrong, "\n\n".join([f"{len(wrong)} tables are read wrongly, {read} well", *wrong[:SHOWN]])
    assert well <= badly, f"{reader} has learned {well - badly}: take it out of CANNOT"
