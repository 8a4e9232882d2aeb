"""What the README and the documents tell to type is typed, in their order."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lakehouse
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "lakehouse-py/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")

# What the reader of the README has, by what it calls it.
FILES = {
    "january.csv": "id,day,amount\n1,2024-01-01,10.5\n2,2024-01-02,20\n3,2024-01-03,30\n",
    "corrections.csv": "id,day,amount\n2,2024-01-02,21\n4,2024-01-31,40\n",
    "new_system.csv": "id,day,amount,channel\n5,2024-01-05,50,web\n",
    "refunds.csv": "id\n3\n",
    "february.csv": "id,day,amount\n6,2024-02-01,60\n",
    # These come after the column was renamed.
    "incoming/seventh.csv": "id,sold_on,amount\n7,2024-02-02,70\n",
    "sales.ndjson": '{"id": 8, "sold_on": "2024-02-03", "amount": 80}\n',
}


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def example(title: str, language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", section(title), re.S).group(1)


def commands(text: str) -> list[str]:
    """The command lines of a text in its order: lines of shell, and what in a sentence is more than a name."""
    found = []
    for match in re.finditer(f"{FENCE.pattern}|{INLINE.pattern}", text, re.S | re.M):
        language, block, inline = match.groups()
        if language == "sh":
            found += [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        elif inline and re.match(r"(lake \S+ \S|tail )", inline):
            found.append(" ".join(inline.split()))
    return [line for line in found if line]


@pytest.fixture
def shell(tmp_path, lake):
    """Runs a line in a folder of its own, where `lake` is the binary that was built."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/lake").symlink_to(lake)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def start(line: str) -> subprocess.Popen:
        pipe = subprocess.PIPE
        # A group of its own: a signal reaches all of a pipeline, as from a terminal.
        return subprocess.Popen(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    return start


def run(shell, line: str) -> str:
    with shell(line) as done:
        said, errors = done.communicate(timeout=60)
    assert done.returncode == 0, f"{line}\n{errors}"
    return said


def run_until(shell, line: str, ready) -> None:
    """Runs what goes on for ever until `ready`, then stops it as Ctrl-C does."""
    with shell(line) as going:
        try:
            until = time.monotonic() + 60
            while not ready():
                assert going.poll() is None, f"{line}\n{going.stderr.read()}"
                assert time.monotonic() < until, line
                time.sleep(0.2)
        finally:
            if going.poll() is None:
                os.killpg(going.pid, signal.SIGINT)


def test_every_command_of_the_shell_section_runs_in_its_order(tmp_path, shell):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def ids() -> list[str]:
        return run(shell, "lake query \"SELECT id FROM 'sales' ORDER BY id\" --output csv").split()[1:]

    said = {}
    lines = commands(section("From the shell"))
    for line in lines:
        if "--watch" in line:
            run_until(shell, line, lambda: "7" in ids())
        elif line.startswith("tail"):
            run_until(shell, line.replace("10s", "1s"), lambda: "8" in ids())
        else:
            said[line] = run(shell, line)
    printed = "\n".join(said.values())
    assert "101.5" in printed  # after the merge
    assert "60.5" in printed  # the version before it
    # Nothing of what was promised was left out.
    verbs = {re.search(r"lake (\S+)", line).group(1) for line in lines}
    assert verbs == {"create", "append", "merge", "query", "alter", "branch", "diff", "vacuum", "maintain"}
    assert ids() == ["1", "2", "4", "5", "6", "7", "8"]
    assert "clean" in run(shell, "lake check sales --deep")


def test_the_commands_of_the_page_about_maintenance_run(tmp_path, shell):
    for table in ("flights", "sales", "clicks"):
        run(shell, f'lake create {table} --schema "id bigint"')
    block = FENCE.search((ROOT / "docs/maintenance.md").read_text()).group(2)
    rounds = tmp_path / "rounds"
    for line in block.splitlines():
        line = line.replace("s3://bucket/clicks", "clicks")
        if "--watch" in line:
            run_until(shell, f"{line.split('#')[0]} > {rounds}", lambda: rounds.exists() and rounds.read_text())
        else:
            run(shell, line)
    # The policy that stands there can be read.
    policy = re.search(r"```toml\n(.*?)```", (ROOT / "docs/maintenance.md").read_text(), re.S).group(1)
    (tmp_path / "shown.toml").write_text(policy)
    run(shell, "lake maintain sales --policy shown.toml")


def test_every_verb_and_option_that_documents_name_is_there(lake):
    known: dict[str, str] = {}

    def help_of(verb: str) -> str:
        if verb not in known:
            done = subprocess.run([lake, verb, "--help"], capture_output=True, text=True)
            assert done.returncode == 0, f"lake {verb}: {done.stderr}"
            known[verb] = done.stdout
        return known[verb]

    wrong, seen = [], 0
    for document in DOCUMENTS:
        text = document.read_text()
        spans = INLINE.findall(FENCE.sub("", text)) + [block for _, block in FENCE.findall(text)]
        for span in spans:
            for verb, rest in re.findall(r"(?:^|[|\n]\s*)lake ([a-z-]+)([^|\n]*(?:\n(?!lake )[^|\n]*)*)", span):
                for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
                    seen += 1
                    if not re.search(rf"{option}(?![a-z-])", help_of(verb)):
                        wrong.append(f"{document.name}: lake {verb} {option}")
                help_of(verb)
    assert not wrong
    assert seen > 60


def test_python_example_runs(tmp_path):
    # The module as it was found here: the example runs in another folder.
    environment = os.environ | {"PYTHONPATH": str(Path(lakehouse.__file__).resolve().parents[1])}
    command = [sys.executable, "-c", example("In Python", "python")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
