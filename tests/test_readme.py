"""The README's shell and Python examples are run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import lakehouse

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def section(title: str, language: str) -> str:
    body = README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return re.search(rf"```{language}\n(.*?)```", body, re.S).group(1)


def test_shell_example_runs(tmp_path, lake):
    (tmp_path / "january.csv").write_text("id,day,amount\n1,2024-01-01,10.5\n2,2024-01-02,20\n3,2024-01-03,30\n")
    (tmp_path / "corrections.csv").write_text("id,day,amount\n2,2024-01-02,21\n4,2024-01-31,40\n")
    script = "set -e\n" + section("From the shell", "sh").replace("lake ", f"{lake} ")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "101.5" in done.stdout  # after the merge
    assert "60.5" in done.stdout  # the version before it


def test_python_example_runs(tmp_path):
    # The module as it was found here: the example runs in another folder.
    environment = os.environ | {"PYTHONPATH": str(Path(lakehouse.__file__).resolve().parents[1])}
    command = [sys.executable, "-c", section("In Python", "python")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
