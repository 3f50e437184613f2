"""The API does what its OpenAPI description says: schemathesis sends what that allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving import serving

# A deadline that cannot be met, a full queue and a server that stops are answers, not failures. The checker's own lists
# lack two refusals: 413, how nonsense that is also too large is refused, and 410, a result that was let go of.
CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 429, "5xx"]
"""


def conforms(folder: Path, examples: int, *options: str) -> None:
    with serving(folder, workers=1, queue_generations=100_000, retention_seconds=60.0) as client:
        (folder / "schemathesis.toml").write_text(CONFIGURATION)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"),
            *("--mode", "all", "--max-examples", str(examples), "--seed", "7", "--no-color"),
            # DELETE of a generation cancels it; what became of it can still be read.
            *("--request-timeout", "30", "--exclude-checks", "use_after_free"),
            *options,
        ]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        assert client.get("/healthz").status_code == 200
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


def test_the_api_is_as_described(tmp_path: Path) -> None:
    conforms(tmp_path, 5, "--phases", "coverage,fuzzing")


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_the_api_is_as_described_whatever_is_sent(tmp_path: Path) -> None:
    conforms(tmp_path, 200)
