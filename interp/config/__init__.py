"""What to run: the settings of one run, as frozen pydantic models.

Each field's docstring is also its `--help` text. Unknown settings are refused. `interp.presets` holds
ready-made values; `with_settings` changes any of them by dotted name.
"""

from interp.config.base import (
    MAX_SEED,
    AnyConfig,
    RunConfig,
    Settings,
    describe,
    differences,
    flatten,
    meant_settings,
)
from interp.config.compiled import CompiledConfig, Control, Variant
from interp.config.data import (
    LIST_SIZES,
    SAMPLING_SETTINGS,
    PopulationConfig,
    SamplingConfig,
    TokenizerConfig,
)
from interp.config.model import ModelConfig
from interp.config.other_runs import (
    OWN_PATTERNS,
    FinetuningConfig,
    MergingConfig,
    PatchingConfig,
)
from interp.config.run import Config
from interp.config.selection import SelectionConfig
from interp.config.stages import (
    AdapterConfig,
    ContradictionConfig,
    DataConfig,
    FormConfig,
    StageConfig,
    stages_in_order,
)
from interp.config.training import EvaluationConfig, LoggingConfig, OptimizerConfig, TrainingConfig

__all__ = [
    "LIST_SIZES",
    "MAX_SEED",
    "OWN_PATTERNS",
    "SAMPLING_SETTINGS",
    "AdapterConfig",
    "AnyConfig",
    "CompiledConfig",
    "Config",
    "ContradictionConfig",
    "Control",
    "DataConfig",
    "EvaluationConfig",
    "FinetuningConfig",
    "FormConfig",
    "LoggingConfig",
    "MergingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PatchingConfig",
    "PopulationConfig",
    "RunConfig",
    "SamplingConfig",
    "SelectionConfig",
    "Settings",
    "StageConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "Variant",
    "describe",
    "differences",
    "flatten",
    "meant_settings",
    "stages_in_order",
]
