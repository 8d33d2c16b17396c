"""How long until something happens? Import of the package, and the demo's first token as a whole process.

    python benchmarks/startup.py

Medians of several fresh processes, as a card and one JSON line. Goals: import below 0.3 s, first token
below 2 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

RUNS = 7
IMPORT = "import time; t = time.perf_counter(); import edgemoe; print(time.perf_counter() - t)"


def import_s() -> float:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return float(done.stdout)


def first_token_s() -> float:
    """From starting the command to the first character of the answer on its standard output."""
    prompt = "Once upon a time"
    started = time.perf_counter()
    command = [sys.executable, "-m", "edgemoe", "demo", "--prompt", prompt, "--max-tokens", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdout is not None
        seen = b""
        while len(seen) <= len(prompt):
            piece = process.stdout.read(1)
            if not piece:
                raise RuntimeError("the demo ended before its first token")
            seen += piece
        elapsed_s = time.perf_counter() - started
        process.stdout.read()
    return elapsed_s


def main() -> None:
    imports = [import_s() for _ in range(RUNS)]
    tokens = [first_token_s() for _ in range(RUNS)]
    print(f"import edgemoe       {statistics.median(imports):.3f} s ({min(imports):.3f}-{max(imports):.3f})")
    print(f"demo, first token    {statistics.median(tokens):.2f} s ({min(tokens):.2f}-{max(tokens):.2f})")
    record = {"benchmark": "startup", "import_s": imports, "first_token_s": tokens}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
