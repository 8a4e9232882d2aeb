"""What the module does to the process that it is in: threads, children, signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest
from samples import people


def test_gil_is_released_while_working(table):
    schema = pa.schema({"id": pa.int64()})
    ticks = []
    done = threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    batch = pa.record_batch({"id": pa.array(range(200_000), pa.int64())})
    table.append(pa.RecordBatchReader.from_batches(schema, iter([batch] * 5)))
    start = time.monotonic()
    table.scan("id % 7 = 3").to_arrow()
    end = time.monotonic()
    done.set()
    counter.join()
    if end - start > 0.05:
        assert sum(start < tick < end for tick in ticks) > 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_can_read(table):
    table.append(people("a"))
    code = (
        "import os, sys, lakehouse\n"
        f"t = lakehouse.Table.open({table.location!r})\n"
        "assert t.scan().count() == 1\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        f"    os._exit(lakehouse.Table.open({table.location!r}).scan().count())\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 1


def test_ctrl_c_stops_a_running_append(table):
    code = (
        "import lakehouse, pyarrow as pa, time\n"
        f"t = lakehouse.Table.open({table.location!r})\n"
        "schema = pa.schema({'id': pa.int64()})\n"
        "def slow():\n"
        "    print('started', flush=True)\n"
        "    for i in range(1000):\n"
        "        time.sleep(0.05)\n"
        "        yield pa.record_batch({'id': pa.array([i], pa.int64())})\n"
        "try:\n"
        "    t.append(pa.RecordBatchReader.from_batches(schema, slow()))\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', flush=True)\n"
        "    import os; os._exit(42)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "started"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) == 42
    assert table.scan().count() == 0
