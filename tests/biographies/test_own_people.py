"""People and wordings of CSV and YAML: read as meant, refused in one line, and known by content."""

import csv
import html
import io
import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import Config, Run, preset, train
from interp.biographies import Batch, Corpus, Population, own_people, tokenizer_of, write_people
from interp.biographies.own_people import population_of
from interp.biographies.tokenizer import words
from interp.cli import main
from interp.engine.store import address_of
from interp.errors import ArgumentError, ConfigError, InterpError, NothingToMeasureError, RunError
from interp.interventions import first_value_tokens, swapped_attributes, swapped_people
from interp.knowledge import (
    METRICS,
    Baseline,
    entropy,
    is_missing,
    mean_metric,
    summarise,
    value_table,
)
from interp.maps.people import map_text
from interp.memory import FactLabels, FactPrompt, cache_activations, draw_batches, key_vectors
from interp.memory.activations import CachedActivations, middle_name_end
from interp.memory.keys import key_measures, key_turns
from interp.memory.probes import probe_accuracies
from interp.memory.values import value_measures
from interp.model import hooked_transformer
from interp.people_files import read_people
from interp.run.checkpoints import fingerprint
from tests.helpers import contents

DOCS = Path(__file__).parents[2] / "docs" / "own_people"
PEOPLE, TEMPLATES = DOCS / "people.csv", DOCS / "templates.yaml"
WORDINGS = {
    "town": ["{name} <lives in> {value}.", "{name} is <at home in> {value}."],
    "job": ["{name} <works as> {value}.", "The <job> of {name} is {value}."],
}
ROWS = "name,town,job\nAda Stone,Rome,baker\nBen Frost,Oslo,\n"


def files(folder: Path, people: str | bytes = ROWS, templates: object = None) -> tuple[Path, Path]:
    paths = folder / "people.csv", folder / "templates.yaml"
    paths[0].write_bytes(people if isinstance(people, bytes) else people.encode())
    told = templates if isinstance(templates, str) else json.dumps(templates or WORDINGS)
    paths[1].write_text(told, encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def own() -> Config:
    return preset("smoke", **own_people(PEOPLE, TEMPLATES))


@pytest.fixture(scope="module")
def own_corpus(own: Config) -> Corpus:
    return Corpus.from_config(own)


def test_read_as_meant(own: Config, own_corpus: Corpus) -> None:
    people, table = own_corpus.population, pd.read_csv(PEOPLE)
    assert own.population.n_individuals == 36
    assert own.population.n_held_out == 4
    assert people.attributes == ("home_port", "employer", "boat", "garden")
    assert people.full_names == table["name"].tolist()
    assert people.is_held_out.tolist() == [False] * 36 + [True] * 4
    for i, row in enumerate(
        table.drop(columns="name").rename(columns={"home port": "home_port"}).to_dict("records")
    ):
        assert people.facts(i) == {name: value for name, value in row.items() if value == value}
    assert people.table()["boat"].isna().sum() == table["boat"].isna().sum() == 4
    sunniva = people.find("sunniva")
    assert [
        pool[i] for pool, i in zip(people.lexicon.names, people.names[sunniva], strict=True)
    ] == ["", "", "Sunniva"]
    assert [pool[i] for pool, i in zip(people.lexicon.names, people.names[5], strict=True)] == [
        "Chiara", "Ana Luísa", "Kowalczyk",
    ]  # fmt: skip


def test_wordings_are_split_for_each_person(own_corpus: Corpus) -> None:
    people = own_corpus.population
    assert people.wordings.shape == (40, 4, 5)
    assert people.wordings.dtype == np.uint8
    assert people.lexicon.n_train_templates == 4
    assert people.files is not None
    splits = set()
    for index, name in enumerate(people.attributes):
        t = len(people.files.templates[name])
        for person in range(len(people)):
            known = set(people.train_wordings[person, index].tolist())
            kept = set(people.evaluation_wordings[person, index].tolist())
            assert known | kept == set(range(t))
            assert not known & kept
            assert len(kept) == max(1, round(t / 5))
            splits.add((name, *kept))
    assert len(splits) == 5 + 3 + 4 + 3  # everybody has a split of their own
    other = Population.of(Config(seed=5, population=people.config))
    assert (other.wordings != people.wordings).any()
    assert np.array_equal(other.values, people.values)


def slow_sequence(corpus: Corpus, batch: Batch, row: int) -> list[str]:
    """The words of a biography, from the texts themselves."""
    people, told = corpus.population, []
    individual = int(batch.individuals[row])
    starts = batch.name_start[row].tolist()
    facts = people.facts(individual)
    for index in np.argsort(starts):
        if starts[index] < 0:
            continue
        name = people.attributes[index]
        template = people.lexicon.templates[name][int(batch.templates[row, index])]
        told += words(
            template.render("NAME", "VALUE")
            .replace("NAME", people.name(individual))
            .replace("VALUE", facts.pop(name))
        )
    assert not facts  # every value is told
    return told


WORD = (
    st.text(st.characters(categories=["L"], max_codepoint=0x3FF), min_size=1, max_size=5)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: text.lower() not in ("nan", "inf"))
)


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(
        st.lists(WORD, min_size=1, max_size=6).map(" ".join), min_size=2, max_size=8, unique=True
    ),
    values=st.lists(
        st.lists(
            st.one_of(st.just(""), st.lists(WORD, min_size=1, max_size=6).map(" ".join)),
            min_size=8,
            max_size=8,
        ),
        min_size=2,
        max_size=2,
    ),
)
def test_sequences_are_what_the_texts_say(names: list[str], values: list[list[str]]) -> None:
    """Odd names of one to six words, values of one to six, some missing, against the plain texts."""
    table = pd.DataFrame(
        {"name": names, "town": values[0][: len(names)], "job": values[1][: len(names)]}
    )
    table.loc[0, ["town", "job"]] = "here", "there"
    table = table[(table["town"] != "") | (table["job"] != "")]
    content = read_people(table, WORDINGS)
    config = preset(
        "smoke", **{"population.n_individuals": len(content.names), "population.n_held_out": 0}
    )
    population = population_of(content, config)
    corpus = Corpus.of(config, population, tokenizer_of(config, population.lexicon))
    for which in ("train", "evaluation"):
        batch = corpus.biographies(slice(None), which)  # type: ignore[arg-type]
        for row in range(len(batch)):
            n = int((batch.kind[row] != 0).sum())
            tokens = corpus.tokenizer.convert_ids_to_tokens(batch.tokens[row, 1:n].tolist())
            assert tokens == slow_sequence(corpus, batch, row)
            assert (
                batch.has_value[row].tolist()
                == (population.values[batch.individuals[row]] >= 0).tolist()
            )


LONG = "x" * 121


def town(*wordings: str) -> dict[str, list[str]]:
    return WORDINGS | {"town": [*wordings, "{name} <is in> {value}."]}


BAD: list[tuple[str, str | bytes, object, str]] = [
    (
        "value first",
        ROWS,
        town("{value} <houses> {name}."),
        "templates.yaml, line 1: .*value before the name",
    ),
    (
        "duplicate name",
        ROWS + "Ada  Stone,Bern,smith\n",
        None,
        "people.csv, line 4: 'Ada  ?Stone' is there already, in line 2",
    ),
    (
        "no wordings of a column",
        ROWS,
        {"town": WORDINGS["town"]},
        "no wordings of the column 'job'",
    ),
    (
        "wordings of no column",
        ROWS,
        WORDINGS | {"jobs": WORDINGS["job"]},
        "no such column. Did you mean 'job'",
    ),
    (
        "unknown placeholder",
        ROWS,
        town("{name} <lives in> {city}."),
        "{city} in .* is no placeholder",
    ),
    ("no type words", ROWS, town("{name} lives in {value}."), "angle brackets"),
    ("empty type words", ROWS, town("{name} <.> {value}."), "no words in its angle brackets"),
    ("stray bracket", ROWS, town("{name} <lives> in > {value}."), "belongs to no placeholder"),
    ("empty file", "", None, "people.csv is empty"),
    ("header only", "name,town,job\n", None, "a header, but no people"),
    ("no column name", "who,town,job\nAda,Rome,baker\n", None, "no column 'name'"),
    ("empty name", ROWS + " ,Rome,baker\n", None, "line 4: the name is empty"),
    ("NaN", ROWS + "Cleo,nan,baker\n", None, "line 4: town 'nan' is no value"),
    ("infinity", ROWS + "Cleo,Rome,-inf\n", None, "line 4: job '-inf' is no value"),
    (
        "not UTF-8",
        ROWS.encode() + "Jürgen,Rome,baker\n".encode("latin-1"),
        None,
        "people.csv cannot be read: .*UTF-8",
    ),
    ("markup", ROWS + "Cleo <b>,Rome,baker\n", None, "line 4: name 'Cleo <b>' holds '<'"),
    ("braces", ROWS + "Cleo,{name},baker\n", None, "line 4: town '{name}' holds '{'"),
    ("special token", ROWS + "Cleo,<pad>,baker\n", None, "line 4: town '<pad>' holds '<'"),
    ("line break", ROWS + '"Cleo\nFrost",Rome,baker\n', None, r"line 5: name .* U\+000A"),
    ("control character", ROWS + "Cleo\x07,Rome,baker\n", None, r"U\+0007"),
    ("turned direction", ROWS + "Cleo\u202e,Rome,baker\n", None, r"U\+202E"),
    (
        "NFC",
        "name,town,job\nJos\u00e9 X,Rome,a\nJose\u0301 X,Oslo,b\n",
        None,
        "line 3: .* is there already, in line 2",
    ),
    (
        "same words",
        "name,town,job\nA. B,Rome,a\nA.B,Oslo,b\n",
        None,
        "line 3: .* have the same words",
    ),
    (
        "column twice",
        "name,town,Town\nAda,Rome,Oslo\n",
        None,
        "column 3: the column 'town' is there already, as column 2",
    ),
    ("ragged row", ROWS + "Cleo,Rome\n", None, "line 4: it has 2 cells, but the header has 3"),
    ("punctuation only", ROWS + "Cleo,Rome,...\n", None, "line 4: job '...' is punctuation only"),
    ("one wording", ROWS, town(), "'town' has 1 wording; give 2"),
    (
        "too many wordings",
        ROWS,
        town(*(f"{{name}} <lives {i} in> {{value}}." for i in range(255))),
        "'town' has 256 wordings",
    ),
    (
        "too many columns",
        "name," + ",".join(f"a{i}" for i in range(101)) + "\nAda" + ",x" * 101 + "\n",
        None,
        "101 attributes",
    ),
    ("no attribute", "name\nAda\n", None, "0 attributes"),
    ("no mapping", ROWS, "- a\n- b\n", "no mapping of attributes"),
    ("empty YAML", ROWS, "\n", "templates.yaml is empty"),
    ("no YAML", ROWS, "town: [", "templates.yaml: Line"),
    ("no list", ROWS, WORDINGS | {"town": "{name} <lives in> {value}."}, "no list of texts"),
    ("wording twice", ROWS, town("{name} <is in> {value}."), "is there twice"),
    ("a longer wording", ROWS, town("{name} <is in the city of> {value}."), "begins like"),
    ("same wording, other attribute", ROWS, town(WORDINGS["job"][0]), "nothing tells which value"),
    (
        "questions of two numbers",
        ROWS,
        WORDINGS | {"questions": {"town": WORDINGS["town"]}},
        "give equally many",
    ),
    (
        "questions of no attribute",
        ROWS,
        WORDINGS | {"questions": ["x"]},
        "questions are no mapping",
    ),
    ("held out?", "name,town,held_out\nAda,Rome,maybe\n", None, "line 2: held_out is 'maybe'"),
    (
        "everybody held out",
        "name,town,job,held_out\nAda,Rome,baker,yes\n",
        None,
        "nobody to train on",
    ),
    ("no value at all", ROWS + "Cleo,,\n", None, "line 4: 'Cleo' has no value at all"),
    (
        "nobody trained on has one",
        "name,town,job,held_out\nAda,Rome,,no\nBen,,baker,yes\n",
        None,
        "nobody who is trained on has a value of 'job'",
    ),
    ("reserved", "name,all\nAda,Rome\n", None, "cannot be called 'all'"),
    ("no identifier", "name,1st\nAda,Rome\n", None, "column 2: '1st' is no name"),
    ("semicolons", "name;town;job\nAda;Rome;baker\n", None, "the header has semicolons"),
    ("broken quotes", 'name,town,job\n"Ada"x,Rome,baker\n', None, "line 2: no CSV"),
    ("long value", ROWS + f"Cleo,{LONG},baker\n", None, "121 characters"),
]


@pytest.mark.parametrize(
    ("people", "templates", "said"), [bad[1:] for bad in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input_is_said_in_one_line(
    people: str | bytes, templates: object, said: str, tmp_path: Path
) -> None:
    paths = files(tmp_path, people, templates)
    before = contents(tmp_path)
    with pytest.raises(InterpError) as caught:
        own_people(*paths, folder=tmp_path / "out")
    assert re.search(said, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["duplicate name", "value first", "not UTF-8", "no YAML"])
@pytest.mark.parametrize("command", ["preview", "train"])
def test_commands_say_it_without_a_traceback(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, people, templates, said = next(bad for bad in BAD if bad[0] == name)
    paths = [str(path) for path in files(tmp_path, people, templates)]
    before = contents(tmp_path)
    flags = ["--population.people", paths[0], "--population.templates", paths[1]]
    arguments = {
        "preview": ["preview", *paths],
        "train": ["train", "smoke", *flags, "--out", str(tmp_path / "run")],
    }
    with pytest.raises(SystemExit) as ended:
        main(arguments[command])
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("error: ")
    assert re.search(said, " ".join(error.split()))
    assert contents(tmp_path) == before


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    people, templates = files(tmp_path)
    for paths, said in (
        ((tmp_path, templates), "it is a folder"),
        ((people, tmp_path), "it is a folder"),
        ((tmp_path / "none.csv", templates), "cannot be read"),
        ((people, tmp_path / "none.yaml"), "cannot be read"),
        (([1, 2], templates), "is no table of people"),
    ):
        with pytest.raises(ArgumentError, match=said):
            own_people(*paths)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="templates is missing"):
        preset("smoke", **{"population.people": str(people)})
    with pytest.raises(ArgumentError, match="give a folder"):
        own_people(pd.DataFrame({"name": ["Ada"], "town": ["Rome"], "job": ["x"]}), WORDINGS)


def test_cells_of_a_table(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "name": [" Ada  Stone", "Ben", "=HYPERLINK(\"http://x\",\"y\")"],
            "Held out": [False, True, False], "town": ["=1+1", None, "Oslo"], "job": [3.0, 2.5, np.nan],
        }
    )  # fmt: skip
    content = read_people(table, WORDINGS)
    assert content.names == ("Ada Stone", '=HYPERLINK("http://x","y")', "Ben")
    assert content.n_held_out == 1
    assert content.values == {"town": ("=1+1", "Oslo", ""), "job": ("3", "", "2.5")}
    no = read_people(
        table.rename(columns={"job": "no"}), {"town": WORDINGS["town"], "no": WORDINGS["job"]}
    )
    write_people(no, tmp_path)
    assert read_people(tmp_path / "people.csv", tmp_path / "templates.yaml") == no
    write_people(content, tmp_path)
    again = read_people(tmp_path / "people.csv", tmp_path / "templates.yaml")
    assert again == content
    assert again.digest == content.digest
    rows = list(csv.reader(io.StringIO((tmp_path / "people.csv").read_text())))
    assert rows[1] == ["Ada Stone", "false", "=1+1", "3"]
    with pytest.raises(ArgumentError, match="row 1: town 'inf' is no value"):
        read_people(pd.DataFrame({"name": ["A", "B"], "town": [1.5, np.inf], "job": "x"}), WORDINGS)


def test_known_by_content(own: Config, tmp_path: Path) -> None:
    """However the files are written, and wherever they lie: the same identity and address."""
    quoted = io.StringIO()
    writer = csv.writer(quoted, quoting=csv.QUOTE_ALL)
    writer.writerows(csv.reader(PEOPLE.read_text("utf-8").splitlines()))
    people, templates = tmp_path / "p.csv", tmp_path / "t.yaml"
    people.write_text("\ufeff" + quoted.getvalue(), encoding="utf-8", newline="")
    templates.write_text("# other\n" + TEMPLATES.read_text("utf-8"), encoding="utf-8")
    same = preset("smoke", **own_people(people, templates))
    assert same.population.people != own.population.people
    assert same.identity() == own.identity()
    assert address_of(same) == address_of(own)
    assert address_of(
        preset("smoke", **{"population.cities": 5}, **own_people(people, templates))
    ) == address_of(own)
    people.write_text(people.read_text("utf-8").replace("Marstal", "Morstal", 1), encoding="utf-8")
    changed = preset("smoke", **own_people(people, templates))
    assert address_of(changed) != address_of(own)
    # Settings that are made of others keep what was read; naming files anew reads them.
    kept = same.with_settings(seed=3)
    assert kept.population.people_digest == own.population.people_digest
    with pytest.raises(RunError, match="have changed since"):
        Population.of(kept)
    anew = same.with_settings(**{"population.people": str(people)})
    assert anew.identity() == changed.identity()
    drawn = same.with_settings(population={"people": None, "templates": None})
    assert drawn.population.people_digest is None


def test_drawn_people_are_known_as_before() -> None:
    """Fingerprints of versions without people of files."""
    for name, before in {"smoke": "8f9cabb9e6fb75ea", "tiny": "a06ae349a4e36d53"}.items():
        config = preset(name)
        assert fingerprint(config)[:16] == before
        assert not [n for n in config.identity() if "people" in n or n == "population.templates"]


@pytest.fixture(scope="module")
def own_run(own: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = own.with_settings(**{"training.n_steps": 4})
    return train(config, tmp_path_factory.mktemp("own") / "run", progress=False)


def test_a_run_keeps_its_people(own_run: Run, tmp_path: Path) -> None:
    source = [tmp_path / "people.csv", tmp_path / "templates.yaml"]
    shutil.copy(PEOPLE, source[0])
    shutil.copy(TEMPLATES, source[1])
    config = own_run.config.with_settings(**own_people(*source))
    run = train(config, tmp_path / "run", progress=False)
    people = run.population.fingerprint()
    source[0].write_text(PEOPLE.read_text("utf-8").replace("Marstal", "Morstal", 1), "utf-8")
    with pytest.raises(RunError, match="what they say is not what it was there"):
        train(config.with_settings(**own_people(*source)), run.path, resume=True, progress=False)
    for path in source:
        path.unlink()
    moved = Path(shutil.move(run.path, tmp_path / "moved"))
    again = Run.load(moved)
    assert again.population.fingerprint() == people
    assert fingerprint(again.config) == fingerprint(config)
    assert train(again.config, moved, resume=True, progress=False).finished
    assert again.measure()["value"].notna().all()
    # From its own copy it is trained again.
    state = contents(moved)
    train(again.config, moved, overwrite=True, progress=False)
    assert contents(moved)["metrics.jsonl"] == state["metrics.jsonl"]
    assert contents(moved)["people.csv"] == state["people.csv"]
    (moved / "people.csv").write_text((moved / "people.csv").read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(RunError, match=r"people.csv is damaged: it is not as it was"):
        _ = Run.load(moved).corpus


def test_metrics_leave_missing_values_out(own_run: Run) -> None:
    """Against the logits of one sequence at a time."""
    model, corpus = own_run.model(), own_run.corpus
    batch = corpus.biographies(slice(0, 12))
    table = value_table(model, batch)
    missing = is_missing(table)
    assert np.array_equal(missing, ~batch.has_value.numpy())
    assert missing.any()
    assert np.isnan(table[:, missing]).all()
    for row, index in zip(*np.nonzero(~missing), strict=True):
        start, n = int(batch.value_start[row, index]), int(batch.value_length[row, index])
        with torch.no_grad():
            logits = model(batch.tokens[row : row + 1, : start + n])[0, start - 1 : start + n - 1]
        log_p = logits.log_softmax(-1)
        target = batch.tokens[row, start : start + n]
        expected = -log_p[range(n), target].sum()
        assert table[0, row, index] == pytest.approx(float(expected), rel=1e-4)
        assert table[1, row, index] == float((log_p.argmax(-1) == target).all())
        assert table[2, row, index] == pytest.approx(float(log_p[0].exp().max()), rel=1e-4)
    summary = summarise(table, "evaluation", corpus.attributes)
    means = np.nanmean(table[0].astype(np.float64), axis=0)
    chosen = summary[summary["metric"] == METRICS[0]].set_index("attribute")["value"]
    assert chosen[list(corpus.attributes)].to_numpy() == pytest.approx(means)
    assert chosen["all"] == pytest.approx(means.mean()) == mean_metric(table, METRICS[0])
    nobody = table.copy()
    nobody[:, :, 2] = np.nan
    assert "boat" not in set(summarise(nobody, "", corpus.attributes)["attribute"])


def test_baseline(own_corpus: Corpus, corpus: Corpus) -> None:
    people = own_corpus.population
    found = Baseline.of(people)
    own = people.values[:36, 2]
    assert found.population["boat"] == found.statistics["boat"] == entropy(own[own >= 0])
    assert found.theoretical["boat"] == np.log(7)
    drawn = corpus.population
    values = drawn.values[drawn.trained]
    parts = np.unravel_index(values[:, 1], (31, 12, drawn.config.years))
    assert Baseline.of(drawn).statistics["birth_date"] == float(sum(map(entropy, parts)))


def test_swaps_ask_nobody_for_what_they_lack(own_corpus: Corpus) -> None:
    values = own_corpus.population.values
    first = first_value_tokens(own_corpus)
    assert ((first < 0).numpy() == (values < 0)).all()
    pairs = swapped_people(own_corpus, n=80)
    boat = swapped_people(own_corpus, n=50, attribute="boat")
    assert len(boat.base) == 50
    for found in (pairs, boat, swapped_attributes(own_corpus, n=40)):
        rows = torch.arange(len(found.base))
        assert found.spans.predicts_value[rows, found.read].all()
        assert (found.base[rows, found.read + 1] == found.base_answer).all()
        assert (found.source[rows, found.source_read + 1] == found.source_answer).all()
        assert (found.base_answer != found.source_answer).all()
    lacking = np.flatnonzero(values[:, 2] < 0)
    with pytest.raises(NothingToMeasureError, match="does not have what is asked for"):
        swapped_people(own_corpus, individuals=lacking[:1], attribute="boat")
    with pytest.raises(NothingToMeasureError, match="does not have what is asked for"):
        swapped_attributes(own_corpus, individuals=lacking[:1], attribute="garden", other="boat")
    with pytest.raises(NothingToMeasureError, match="pair 0 do not both have"):
        swapped_people(own_corpus, individuals=np.array([0]), others=lacking[:1], attribute="boat")
    swapped_attributes(own_corpus, n=40)
    swapped_attributes(own_corpus, n=40, attribute="boat", other="garden")


def test_memory_leaves_people_without_a_value_out(own: Config, own_corpus: Corpus) -> None:
    """What is measured of an attribute is what is measured of those who have it, alone."""
    model = hooked_transformer(own, own_corpus.tokenizer)
    everybody = np.arange(36)
    train_draws = draw_batches(own_corpus, everybody, "train", (0, 1))
    batches = draw_batches(own_corpus, everybody, "evaluation", (0, 1))
    index = own_corpus.attributes.index("boat")
    fitted, known = cache_activations(model, train_draws), cache_activations(model, batches)
    assert known.positions == ("last name", "predicts value")  # some have no middle name
    has = torch.from_numpy(own_corpus.population.values[everybody, index] >= 0)
    assert not has.all()
    assert known.neurons[0][:, index][:, :, ~has].isnan().all()
    assert known.neurons[0][:, index][:, :, has].isfinite().all()
    having = np.flatnonzero(has.numpy())
    own_keys = key_vectors(model, own_corpus, 0, having, attribute="boat")
    of_them = cache_activations(model, draw_batches(own_corpus, having, "evaluation", (0, 1)))
    assert torch.equal(own_keys, of_them.neurons[0][0, index].mean(dim=0))
    assert key_vectors(model, own_corpus, 0).isfinite().all()
    with pytest.raises(NothingToMeasureError, match="has no boat"):
        key_vectors(model, own_corpus, 0, attribute="boat")
    with pytest.raises(NothingToMeasureError, match="no middle name"):
        key_vectors(model, own_corpus, 0, position="middle name")

    labels = FactLabels.of(own_corpus)
    assert (labels.relations["boat"].of_individual[everybody] >= 0).tolist() == has.tolist()
    boat = FactLabels({"boat": labels.relations["boat"]}, labels.namesakes)

    def only(cache: CachedActivations, people: torch.Tensor) -> CachedActivations:
        return CachedActivations(
            cache.individuals[people], cache.templates[:, people, index : index + 1],
            {site: x[:, index : index + 1, :, people] for site, x in cache.residual.items()},
            {layer: x[:, index : index + 1, :, people] for layer, x in cache.neurons.items()},
            cache.positions,
        )  # fmt: skip

    all_of_them = torch.ones(36, dtype=torch.bool)
    measures: list[Callable[[CachedActivations, CachedActivations], pd.DataFrame]] = [
        lambda _, one: key_measures(boat, one),
        lambda _, one: value_measures(model, boat, one),
    ]
    for measure in measures:
        with_gaps = measure(only(fitted, all_of_them), only(known, all_of_them))
        without = measure(only(fitted, has), only(known, has))
        assert with_gaps["value"].notna().any()
        pd.testing.assert_series_equal(with_gaps["value"], without["value"])
    probes = probe_accuracies(own_corpus, fitted, known)
    assert probes[["accuracy", "control"]].notna().all().all()
    with_gaps = probe_accuracies(boat, only(fitted, all_of_them), only(known, all_of_them))
    without = probe_accuracies(boat, only(fitted, has), only(known, has))
    assert with_gaps["accuracy"].to_numpy() == pytest.approx(
        without["accuracy"].to_numpy(), abs=0.1
    )
    assert key_turns(known, known)["value"].abs().max() < 1e-6


def test_other_places_know_the_attributes(own_corpus: Corpus) -> None:
    lacking = int(np.flatnonzero(own_corpus.population.values[:, 2] < 0)[0])
    shown = map_text(own_corpus, lacking)
    assert {fact.relation for fact in shown.facts} == {"home port", "employer", "garden"}
    with pytest.raises(NothingToMeasureError, match="has no boat"):
        FactPrompt.of_person(own_corpus, lacking, "boat")
    prompt = FactPrompt.of_person(own_corpus, "Sunniva", "Home Port")
    assert prompt.value == "Marstal"
    assert set(prompt.places) == {"predicts value", "last name"}
    with pytest.raises(ArgumentError, match="birth_place"):
        FactPrompt.of_person(own_corpus, 0, "birth place")
    batch = own_corpus.biographies(slice(None))
    middle = middle_name_end(batch)
    assert (
        (middle >= 0).any(dim=1).numpy()
        == [len(n.split()) > 2 for n in own_corpus.population.full_names]
    ).all()


def test_from_files_to_a_report_in_one_command(tmp_path: Path) -> None:
    out, table = tmp_path / "run", pd.read_csv(PEOPLE, keep_default_na=False)
    table.loc[0, "employer"] = '=HYPERLINK("http://x","R&D")'
    table.to_csv(tmp_path / "people.csv", index=False)
    main([
        "reproduce", "smoke", "--population.people", str(tmp_path / "people.csv"),
        "--population.templates", str(TEMPLATES), "--training.n-steps", "4", "--training.early-checkpoints",
        "0", "--training.checkpoint-every", "4", "--model.n-layers", "1", "--out", str(out),
    ])  # fmt: skip
    page = (out / "report.html").read_text("utf-8")
    for text in ("home port", "up to 4 wordings for training", "located-facts"):
        assert text in page
    assert 'HYPERLINK("' not in page
    cell = re.search(r"employer: =HYPERLINK[^<]*", html.unescape(page))
    assert cell is not None
    run = Run.load(out)
    assert run.population.facts(0)["employer"] == '=HYPERLINK("http://x","R&D")'
    attributes = set(run.result("knowledge", "final")["attribute"])  # type: ignore[index]
    assert attributes == {"all", "home_port", "employer", "boat", "garden"}
    assert not run.not_measured
