"""Claims about learning, at the tiny preset, and the paper's scale for one step (make test-slow)."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from transformer_lens import patching

import interp
import interp.associative_memory
from interp.biographies import Corpus, TokenKind
from interp.interventions import LOGIT_DIFFERENCE, Grid, Pairs, patch, swapped_people
from interp.model import parameter_counts, training_loss
from interp.phases import DELTA, PAPER_EXPONENT
from interp.plateau import plateau_facts
from interp.run import Run
from interp.stages import reproduce, summary
from interp.studies import (
    associative_memory,
    explained,
    fit_of,
    more_seeds,
    name_tokens,
    plateau,
    power_law,
    recall_order,
)
from interp.studies.recall_order_measured import Read, strengths
from interp.studies.robustness import PHASES, shows_phases
from interp.studies.sizes import PlateauSettings

GALLERY = Path(__file__).parents[1] / "artifacts" / "gallery"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("tiny") / "run"
    run = reproduce(interp.preset("tiny"), folder, progress=False)
    torch.set_num_threads(1)
    return run


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(GALLERY / "tiny_seeds.csv").set_index("seed")


def test_tiny_learns_in_three_phases(tiny_run: Run) -> None:
    phases = tiny_run.phases
    assert phases.statistics_end is not None
    assert phases.plateau_end is not None
    assert 0 < phases.statistics_end < phases.plateau_end < tiny_run.config.training.n_steps
    accuracy = tiny_run.curve("attribute_accuracy")
    assert accuracy[phases.statistics_end] < 0.05, "hardly anything is known on the plateau"
    assert accuracy.iloc[-1] >= 0.99


def test_demo_shows_its_plateau(tmp_path: Path) -> None:
    """The loss falls at least twice as fast before and after the plateau as on it; then all is learned."""
    run = interp.train(interp.preset("demo"), tmp_path / "demo", progress=False)
    loss = run.curve() / run.phase_baseline
    curve = pd.DataFrame({"loss": loss, "accuracy": run.curve("attribute_accuracy")})
    facts = plateau_facts(curve, run.config.training.batch_size)
    assert shows_phases(facts, **PHASES | {"slower": 2})
    assert facts["plateau_length"] >= 200
    assert facts["last_accuracy"] >= 0.9


def test_held_out_people_are_hallucinated_about(tiny_run: Run) -> None:
    found = summary(tiny_run)["knowledge"]
    assert found["held_out"]["attribute_loss"] > tiny_run.baseline
    assert found["held_out"]["top_probability"] < found["evaluation"]["top_probability"]


def test_the_committed_table_still_holds(tiny_run: Run, committed: pd.DataFrame) -> None:
    """Other machines round otherwise: steps may move by a few measurements, accuracy by a little."""
    found, row = summary(tiny_run), committed.loc[0]
    every = tiny_run.config.evaluation.every
    for name in ("statistics_end", "plateau_end"):
        assert abs(found["phases"][name] - row[f"phases.{name}"]) <= 3 * every
    accuracy = found["knowledge"]["evaluation"]["attribute_accuracy"]
    assert abs(accuracy - row["knowledge.evaluation.attribute_accuracy"]) < 0.01


def test_the_committed_tables_hold_what_the_readme_says(committed: pd.DataFrame) -> None:
    assert len(committed) >= 3
    assert (committed["knowledge.evaluation.attribute_accuracy"] >= 0.99).all()
    loss = committed["knowledge.held_out.attribute_loss"]
    assert (loss > committed["phases.baseline"]).all()
    table = pd.read_csv(GALLERY / "studies/plateau/runs.csv")
    fits = pd.read_csv(GALLERY / "studies/plateau/fits.csv")
    row = fits[(fits["delta"] == 0.05) & (fits["measure"] == "plateau_end")].iloc[0]
    assert fit_of(table).exponent == pytest.approx(row["exponent"])
    assert row["low"] < PAPER_EXPONENT < row["high"]


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """Attribute losses of runs patched throughout: seed and step by reference (-1: unpatched)."""
    whole = (table["start"] == 0) & (table["layers"] == "all") & (table["heads"] == "all")
    rows = table[whole & (table["metric"] == "attribute_loss")].copy()
    rows["reference_step"] = rows["reference_step"].fillna(-1).astype(int)
    return rows.pivot_table("value", ["seed", "step"], "reference_step")


def test_late_attention_removes_the_plateau_and_early_attention_lengthens_it(
    tiny_run: Run,
) -> None:
    table = tiny_run.result("patching", "curves")
    assert table is not None
    found = losses(table).loc[0]
    end = tiny_run.phases.plateau_end
    assert end is not None
    for step in (end, 1.5 * end, 2 * end):
        at = found.loc[int(step)]
        assert at[found.columns[-1]] < at[end] < at[-1] < at[0]


def test_the_committed_patching_table_holds_what_the_readme_says(tiny_run: Run) -> None:
    committed_losses = losses(pd.read_csv(GALLERY / "patching.csv"))
    full = committed_losses[[-1, 0, 100, 200, 225, 250, 275, 300, 600, 1500]].dropna()
    assert full.index.unique("seed").size >= 3
    late = full[full.index.get_level_values("step") >= 250]
    for reference in (600, 1500):
        assert (late[reference] < late[-1]).all()
    assert (late[100] > late[-1]).all()
    for _, rows in full.groupby("seed"):
        at = rows.droplevel("seed")
        for step in (300, 500, 1000):
            inside = at.loc[step, [225, 250, 275, 300, 600, 1500]]
            assert inside.is_monotonic_decreasing
        # Attention of the statistics phase: better than the untrained early, worse late.
        assert at.loc[100, 100] < at.loc[100, 0]
        assert at.loc[1500, 100] > at.loc[1500, 0]
    again = tiny_run.result("patching", "curves")
    assert again is not None
    here = losses(again).loc[0]
    for reference in here.columns:
        assert abs(here.loc[300, reference] - full.loc[(0, 300), reference]) < 0.4


def test_attention_to_names_falls_then_rises_through_the_plateau(tiny_run: Run) -> None:
    scores = tiny_run.result("attention", "scores")
    assert scores is not None
    rows = scores[(scores["metric"] == "attribute_to_any_name") & (scores["layer"] == 1)]
    curve = rows.groupby("step")["value"].mean()
    phases = tiny_run.phases
    lowest = int(curve.idxmin())
    assert 0 < lowest <= phases.statistics_end
    assert curve[lowest] < 0.8 * curve[0]
    assert curve[phases.plateau_end] > 1.5 * curve[phases.statistics_end]
    committed_scores = pd.read_csv(GALLERY / "attention_tiny.csv").query(
        "seed == 0 and metric == 'attribute_to_any_name' and layer == 1"
    )
    assert curve.iloc[-1] == pytest.approx(committed_scores["value"].iloc[-1], abs=0.1)


def test_what_the_value_reads_is_what_it_costs_to_cut(tiny_run: Run) -> None:
    cost = summary(tiny_run)["knockout"]["cost"]
    assert cost["attribute_to_any_name"] > 5 > 10 * cost["control"]
    assert abs(cost["name_to_name"]) < 0.05, "no grouping at the last name token"


def of(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows of a table with these values."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def memory_table(name: str, preset: str = "tiny") -> pd.DataFrame:
    return pd.read_csv(GALLERY / f"memory_{preset}" / f"{name}.csv")


def result(run: Run, stage: str, name: str) -> pd.DataFrame:
    table = run.result(stage, name)
    assert table is not None
    return table


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_probes_read_facts_only_after_the_plateau(tiny_run: Run, seed: int | None) -> None:
    """Of the run trained here (None) and in the committed tables."""
    table = (
        result(tiny_run, "memory", "probes")
        if seed is None
        else of(memory_table("probes"), seed=seed)
    )
    probes = of(table, attribute="all")
    early = probes[probes["step"] <= tiny_run.phases.statistics_end]
    assert early["selectivity"].abs().max() < 0.03
    assert early["selectivity_other_people"].abs().max() < 0.02
    last = of(probes, step=1500, position="predicts value", layer=1).set_index("site")
    assert last.loc["resid_mid", "selectivity"] > 0.1
    assert last.loc["resid_post", "selectivity_other_people"] > 0.35


def test_what_predictions_follow(tiny_run: Run) -> None:
    """All name tokens at MLP 0, the value position after attention 1; never the last name token."""
    for swaps in (result(tiny_run, "interventions", "swaps"), memory_table("swaps")):
        last = of(swaps, step=1500, sentences="any").set_index(["site", "layer", "position"])
        means = last.groupby(level=[0, 1, 2])[["follows", "control"]].mean()
        assert means["control"].max() < 0.05
        assert means.loc[("mlp_out", 0, "every name"), "follows"] > 0.5
        assert means.loc[("resid_mid", 0, "every name"), "follows"] > 0.6
        assert means.loc[("attn_out", 1, "predicts value"), "follows"] > 0.65
        assert means.loc[("mlp_out", 0, "every middle name"), "follows"] > 0.2
        assert means.loc[("mlp_out", 0, "every last name"), "follows"] < 0.05
        assert means.xs("last name", level="position")["follows"].max() < 0.1


def test_names_are_grouped_at_the_middle_one(tiny_run: Run) -> None:
    for edges in (result(tiny_run, "interventions", "edges"), memory_table("edges")):
        last = of(edges, step=1500).groupby(["layer", "query", "key"])["cost"].mean()
        assert last[(0, "every middle name", "every first name")] > 0.3
        assert abs(last[0]["every last name"]).max() < 0.05
        assert last[(1, "predicts value", "every middle name")] > 1.5
        assert abs(last[(1, "predicts value", "every last name")]) < 0.05


def test_extraction_attention_comes_before_the_memory(tiny_run: Run) -> None:
    tables = [result(tiny_run, "emergence", "steps")]
    tables += [of(memory_table("emergence"), seed=seed) for seed in (0, 1, 2)]
    tables.append(memory_table("emergence", "small"))
    for table in tables:
        step = table.set_index("mechanism")["step"]
        assert step["type attention"] < step["extraction attention"]
        assert step["extraction attention"] < step["key-value agreement at names"]
        assert step["key-value agreement at names"] < step["key-value agreement at value"]
        assert step["key-value agreement at value"] < step["knowledge"]
        assert pd.isna(step["name grouping at last name"])
        assert of(table, mechanism="extraction attention")["phase"].tolist() == ["plateau"]


def test_ablated_mlps_cost_at_middle_names_and_not_at_last_ones(tiny_run: Run) -> None:
    for table in (result(tiny_run, "interventions", "ablations"), memory_table("ablations")):
        cost = of(table, step=1500, layer=0).groupby("position")["cost"].mean()
        assert cost["name"] > 2
        assert cost["middle name"] > 1
        assert abs(cost["last name"]) < 0.05 > abs(cost["control"])


def test_batched_patching_equals_transformerlens(tiny_run: Run) -> None:
    """On a trained model, cell by cell."""
    model = tiny_run.model()
    pairs = swapped_people(tiny_run.corpus, 8, place="last")
    source = pairs.base.clone()
    is_name = pairs.spans.is_kind(TokenKind.NAME)
    source[is_name] = pairs.source.gather(1, pairs.source_position.clamp(min=0))[is_name]
    same = Pairs.of_tokens(
        pairs.base, source, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )
    rows = torch.arange(len(same))

    def difference(logits: torch.Tensor) -> torch.Tensor:
        read = logits[rows, same.read]
        return (read[rows, same.source_answer] - read[rows, same.base_answer]).mean()

    stock = {
        "resid_pre": patching.get_act_patch_resid_pre,
        "mlp_out": patching.get_act_patch_mlp_out,
        "z": patching.get_act_patch_attn_head_out_by_pos,
    }
    with torch.no_grad():
        _, cache = model.run_with_cache(source)
        for site, function in stock.items():
            found = patch(model, same, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)[
                "value"
            ]
            theirs = function(model, same.base, cache, difference)
            theirs = theirs.transpose(1, 2) if site == "z" else theirs
            assert theirs.abs().max() > 1
            torch.testing.assert_close(
                torch.tensor(found.to_numpy()), theirs.flatten().double(), rtol=0, atol=1e-5
            )


def test_the_paper_preset_takes_a_step() -> None:
    config = interp.preset(
        "paper", **{"population.n_individuals": 2000, "population.n_held_out": 1}
    )
    corpus = Corpus.from_config(config)
    model = interp.hooked_transformer(config, corpus.tokenizer)
    # 8 layers of 4 d² attention and 8 d² MLP weights; the embeddings of a 32k vocabulary and
    # relative positions would make up the rest of the paper's "44M".
    counts = parameter_counts(model)
    assert 25.1e6 < counts["non_embedding"] < 25.3e6
    tokens = corpus.batch(step=0, size=4).tokens
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.learning_rate)
    losses = []
    for _ in range(2):
        loss = training_loss(model, tokens, pad_token=corpus.tokenizer.pad_token_id)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]


STUDIES = GALLERY / "studies"


@pytest.mark.parametrize(("n", "exponent"), [(256, 0.0), (512, 1.0)])
def test_the_committed_power_law_table_still_holds(tmp_path: Path, n: int, exponent: float) -> None:
    """The study's runs are trained on one thread; other machines round otherwise."""
    settings = power_law.STUDY.settings.model_validate(
        {"seeds": (0,), "sizes": (n,), "exponents": (exponent,), "shorter": ()}
    )
    [planned] = power_law.STUDY.runs(settings)
    run = interp.train(planned.config, tmp_path / "run", progress=False)
    table = pd.read_csv(STUDIES / "power_law" / "runs.csv")
    chosen = (table["n_individuals"] == n) & (table["exponent"] == exponent)
    rows = table[chosen].set_index("seed")
    assert len(rows) == 3
    assert abs(run.phases.plateau_end - rows.loc[0, "plateau_end"]) <= 3 * 25
    accuracy = run.curve("attribute_accuracy").iloc[-1]
    assert abs(accuracy - rows.loc[0, "attribute_accuracy"]) < 0.05


def test_the_toy_memory_at_full_size_gives_the_committed_table(tmp_path: Path) -> None:
    """8,192 pairs, fine-tuned on 1,024 new ones without replay: half a minute."""
    settings = associative_memory.STUDY.settings.model_validate(
        {"seeds": (0,), "n_new": (1024,), "replay_weights": (None,)}
    )
    [planned] = associative_memory.STUDY.runs(settings)
    run = interp.associative_memory.train(planned.config, tmp_path / "run", progress=False)
    found = associative_memory.STUDY.tables(settings, [run])["finetuning"]
    committed = pd.read_csv(STUDIES / "associative_memory" / "finetuning.csv")
    keys = ["n_new", "replay_weight", "seed", "step", "split", "metric"]
    both = found.merge(committed, on=keys, suffixes=("", "_committed"))
    assert len(both) == len(found)
    assert (both["value"] - both["value_committed"]).abs().max() < 0.05


@pytest.mark.parametrize("names", ["ordinary", "no loss on names"])
def test_the_committed_table_of_name_tokens_still_holds(tmp_path: Path, names: str) -> None:
    settings = name_tokens.NameTokensSettings(seeds=(1,), names=(names,), confirmed_by=())
    [planned] = name_tokens.planned(settings)
    run = interp.train(planned.config, tmp_path / "run", progress=False)
    found = name_tokens.tables(settings, [run])["places"].set_index("token")
    committed = pd.read_csv(STUDIES / "name_tokens" / "places.csv")
    rows = committed[(committed["seed"] == 1) & (committed["names"] == names)].set_index("token")
    assert list(found["determined"]) == list(rows["determined"])
    for column, most in (("strongest", 0.2), ("effect", 0.1), ("attention", 0.1)):
        assert (found[column] - rows[column]).abs().max() < most
    assert found["strongest"].idxmax() == 2


def test_the_committed_table_of_the_order_of_recall_still_holds(tmp_path: Path) -> None:
    settings = recall_order.RecallOrderSettings(seeds=(0,))
    [planned] = recall_order.planned(settings)
    run = interp.train(planned.config, tmp_path / "run", progress=False)
    read = Read.of(run.corpus, settings.n_people, settings.n_pairs)
    found = strengths(run, run.model(), read, "middle name")
    committed = pd.read_csv(STUDIES / "recall_order" / "dates.csv")
    rows = committed[(committed["size"] == "tiny") & (committed["seed"] == 0)]
    dates = recall_order.dates(found, pd.read_csv(STUDIES / "recall_order" / "corrections.csv"))
    both = dates.merge(rows, on="measure", suffixes=("", "_committed"))
    assert len(both) == len(rows)
    assert (both["step"] - both["step_committed"]).abs().max() <= 50


def test_the_committed_table_of_disagreements_still_holds(tmp_path: Path) -> None:
    settings = explained.ExplainedSettings(seeds=(1,), changes=("people",))
    change, case, of_case = next(settings.cases())
    plans = change.study.runs(of_case)
    [planned] = [p for p in plans if p.config.optimizer.learning_rate == 3e-3]
    run = interp.train(planned.config, tmp_path / "run", progress=False)
    found = change.study.tables(of_case, [run])["runs"].dropna(subset="last_step").iloc[0]
    committed = pd.read_csv(STUDIES / "explained" / "robustness_runs.csv")
    [row] = committed[
        (committed["change"] == change.name)
        & (committed["case"] == case)
        & (committed["seed"] == 1)
        & (committed["variant"] == found["variant"])
    ].to_dict("records")
    for column in ("statistics_end", "plateau_end"):
        assert abs(found[column] - row[column]) <= 3 * planned.config.evaluation.every


@pytest.mark.parametrize(
    ("case", "near"), [("memory of random features", 0.001), ("fewer people", 0.05)]
)
def test_the_committed_table_of_more_seeds_still_holds(
    tmp_path: Path, case: str, near: float
) -> None:
    settings = more_seeds.MoreSeedsSettings(cases=(case,), seeds=(3,))
    runs = [
        interp.train(plan.config, tmp_path / str(i), progress=False)
        for i, plan in enumerate(more_seeds.planned(settings))
    ]
    [found] = more_seeds.tables(settings, runs)["numbers"]["value"]
    table = pd.read_csv(STUDIES / "more_seeds" / "numbers.csv")
    [committed] = table[(table["case"] == case) & (table["seed"] == 3)]["value"]
    assert abs(found - committed) <= near


def test_the_committed_table_of_plateaus_still_holds(tmp_path: Path) -> None:
    settings = PlateauSettings(sizes=(256, 512, 1024), seeds=(0,))
    run = interp.train(plateau.STUDY.runs(settings)[1].config, tmp_path / "run", progress=False)
    table = pd.read_csv(STUDIES / "plateau" / "runs.csv")
    row = table[(table["n_individuals"] == 512) & (table["seed"] == 0) & (table["delta"] == DELTA)]
    assert abs(run.phases.plateau_end - row["plateau_end"].iloc[0]) <= 3 * 10
