"""Writes trust.csv beside itself: the trust table over 5 populations and the variants at `smoke`.

And its sums into the package (interp/trust/marks.csv), from where reports have them.
"""

import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import interp
from interp.trust import summary, trust_table

CONTROLS = ("head", "direction", "neurons")
n_seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
tables = []
for seed in range(n_seeds):
    for variant in ("local", "distributed", "geometric"):
        config = interp.preset("smoke", seed=seed)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            if variant == "geometric":
                config = interp.one_token_people(config, folder)
            try:
                tables.append(
                    trust_table(interp.compile_recall(config, variant, controls=CONTROLS))
                )
            except interp.InterpError as error:  # said, and the row is missing
                sys.stderr.write(f"{variant} {seed}: {error}\n")
                continue
        table = pd.concat(tables)
        table.to_csv(Path(__file__).with_name("trust.csv"), index=False)
        home = Path(interp.__file__).parent / "trust" / "marks.csv"
        summary(table).round({"error": 4}).to_csv(home, index=False)
        sys.stderr.write(
            f"{time.monotonic() - began:.0f} s\n{tables[-1].iloc[:, :10].to_string()}\n"
        )
