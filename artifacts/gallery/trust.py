"""Writes trust.csv beside itself: the trust table over 5 populations and the variants at `smoke`."""

import sys
import tempfile
from pathlib import Path

import pandas as pd

import interp
from interp.trust import trust_table

CONTROLS = ("head", "direction", "neurons")
n_seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
tables = []
for seed in range(n_seeds):
    for variant in ("local", "distributed", "geometric"):
        config = interp.preset("smoke", seed=seed)
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
        pd.concat(tables).to_csv(Path(__file__).with_name("trust.csv"), index=False)
        sys.stderr.write(f"{tables[-1].iloc[:, :10].to_string()}\n")
