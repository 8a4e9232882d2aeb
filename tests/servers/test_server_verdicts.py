"""The judge itself: servers that are wrong in known ways are found out, a right one is not."""

import itertools
import threading
import time

import conditional
import install
import pytest
from wire import Answer


class Memory:
    """A client of a server in this process; `flaw` is what is wrong with it."""

    def __init__(self, flaw: str):
        self.flaw, self.lock, self.tags = flaw, threading.Lock(), itertools.count()
        self.objects: dict[str, tuple[bytes, str]] = {}

    def put(self, name: str, body: bytes, absent: bool = False, tag: str | None = None) -> Answer:
        if self.flaw == "knows no puts":
            return Answer(400)
        if self.flaw == "looks, then writes":
            if absent and name in self.objects:
                return Answer(412)
            time.sleep(0.002)
            absent = False
        with self.lock:
            there = self.objects.get(name)
            if self.flaw != "ignores conditions" and (absent and there or tag and there and there[1] != tag):
                return Answer(412)
            self.objects[name] = (body, f"tag {next(self.tags)}")
            # Told no, and written.
            return Answer(500 if self.flaw == "answers wrongly" and absent and "race" in name else 200)

    def get(self, name: str) -> tuple[Answer, str]:
        body, tag = self.objects.get(name, (b"", ""))
        return Answer(200 if tag else 404, body=body), tag

    def delete(self, name: str) -> Answer:
        if self.flaw != "remembers names":
            self.objects.pop(name, None)
        return Answer(204)


def test_a_server_that_is_right_is_found_right():
    verdict = conditional.judge(Memory("none"), keys=5)
    assert verdict.keeps_creates and verdict.keeps_swaps, verdict
    assert verdict.statuses == {200: 5, 412: 5 * (conditional.WRITERS - 1)}


@pytest.mark.parametrize(
    "flaw", ["ignores conditions", "looks, then writes", "answers wrongly", "remembers names", "knows no puts"]
)
def test_a_server_that_is_wrong_is_found_out(flaw):
    verdict = conditional.judge(Memory(flaw), keys=5)
    assert not verdict.keeps_creates
    assert "creates WRONG" in str(verdict)


@pytest.mark.parametrize(("ci", "code"), [("1", 1), ("", 0)])
def test_what_the_machine_lacks_is_named_and_fails_where_ci_is_set(monkeypatch, capsys, tmp_path, ci, code):
    monkeypatch.setattr(install, "HOME", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    assert install.main() == code
    said = capsys.readouterr().out
    assert "go: not found; skipped: minio, versitygw, fake-gcs-server" in said
    assert "npm: not found; skipped: s3rver, azurite" in said
    assert install.installed() == []
