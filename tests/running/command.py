"""``make reproduce`` as a user starts it, with store and figures in a folder of the test."""

import os
import subprocess
import sys


def reproduce(tmp_path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    places = {"RURANET_STORE": str(tmp_path / "store"), "RURANET_FIGURES": str(tmp_path / "figures")}
    command = [sys.executable, "-m", "ruranet_utils.running.reproduce", *arguments]
    return subprocess.run(
        command, env={**os.environ, **places, **environment}, capture_output=True, text=True, check=False
    )
