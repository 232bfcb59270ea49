"""The studies that come with the package, by name, and those in files of a user's own, by path."""

from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from interp.errors import ConfigError, InterpError, short, suggest
from interp.studies import (
    associative_memory,
    celebrities,
    compiled,
    differences,
    equations,
    explained,
    fact_writing,
    finetuning,
    forms,
    hallucination,
    memory_kind,
    mnemonic,
    model_centric,
    more_seeds,
    name_tokens,
    plateau,
    power_law,
    recall_order,
    robustness,
    sequential,
    warm_up,
)
from interp.studies.study import Study

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        plateau,
        robustness,
        power_law,
        celebrities,
        warm_up,
        hallucination,
        finetuning,
        sequential,
        associative_memory,
        forms,
        mnemonic,
        equations,
        differences,
        memory_kind,
        compiled,
        fact_writing,
        model_centric,
        name_tokens,
        recall_order,
        explained,
        more_seeds,
    )
}
"""In the order of the paper, then what goes beyond it."""


def is_file(name: str) -> bool:
    """Whether a study is named by the path of its file."""
    return name.endswith(".py")


def study_named(name: str) -> Study:
    """A study, by its name or by the path of a Python file that ends with `STUDY = Study(...)`.

    The file is run, as `python my_study.py` would run it.

    Raises:
        ConfigError: there is no such study or file, or the file holds no study.
    """
    if is_file(name):
        path = Path(name).resolve()
        if not path.is_file():
            raise ConfigError(f"There is no file {name}; name the study's file where it lies now.")
        return _study_in(path, path.stat().st_mtime_ns)
    if name not in STUDIES:
        raise ConfigError(
            f"There is no study {short(name)}.{suggest(name, STUDIES)} Studies: {', '.join(STUDIES)}; "
            "a study of your own is a Python file, named by its path (my_study.py)."
        )
    return STUDIES[name]


@lru_cache
def _study_in(path: Path, changed: int) -> Study:
    """The study of a file; read again once the file has changed."""
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be read as a Python file.")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InterpError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{path} could not be run: {type(error).__name__}: {error}. Run it by `python {path.name}` "
            "to see where."
        ) from error
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise ConfigError(
            f"{path} holds no study: it has to end with `STUDY = Study(...)` "
            "(from interp.studies import Study)."
        )
    return study
