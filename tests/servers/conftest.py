"""Servers as fixtures: each starts once for all tests."""

import os
from contextlib import ExitStack
from functools import cache

import pytest
from conditional import KEEPS_CREATES
from running import CLOUDS, NAMES, running
from shell import Shell

SOUND = [name for name in CLOUDS if KEEPS_CREATES[name]]


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings(tmp_path_factory):
    """Nothing of what the machine has set up for a cloud may help a test to pass."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def start():
    """Starts a server by name, once."""
    with ExitStack() as stack:

        @cache
        def started(name: str):
            if name not in NAMES:
                pytest.skip(f"{name} is not installed")
            return stack.enter_context(running(name))

        yield started


@pytest.fixture(params=SOUND)
def server(request, start):
    """Each server whose creates are right."""
    return start(request.param)


@pytest.fixture
def shell(lake, server):
    """`lake` with the settings of that server."""
    return Shell(lake, server)
