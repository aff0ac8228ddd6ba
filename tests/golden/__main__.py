"""Write the golden file anew: ``python -m tests.golden``."""

from __future__ import annotations

import sys

import torch

from kvharness.records.engine_version import ENGINE_VERSION
from tests.golden.golden_file import FILE, Cause, Golden, advice, golden, observe


def main() -> int:
    torch.set_num_threads(1)
    found = observe()
    before = Golden.read() if FILE.exists() else Golden(engine=0, entries={})
    differences = before.differences(found)
    if before.engine == ENGINE_VERSION and any(d.cause is Cause.ENGINE for d in differences):
        sys.stdout.write(f"{advice(differences, before.engine)}\n")
        return 1
    written = golden(found)
    written.write()
    left_out = sum(one.get("left_out", 0) for one in written.entries.values())
    sys.stdout.write(
        f"{FILE}: {len(written.entries)} entries of engine version {written.engine}, "
        f"{FILE.stat().st_size} bytes; near-ties decide {left_out} of them or of their kept sets\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
