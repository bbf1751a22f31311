"""One frozen dataclass per command: its fields are the flags, the recipe's keys and the documentation.

    palate sft --epochs 3                     flags win over ...
    palate sft --recipe recipes/conversations.yaml ... the recipe's `sft:` section, which wins over ...
    palate.yaml                               ... the project's `sft:` section, which wins over the defaults

The sentence under each field is what `palate COMMAND --help` prints. Nothing here imports torch, duckdb or
gradio, so help is quick.
"""

from palate.config.core import (
    BUILTIN as BUILTIN,
)
from palate.config.core import (
    POLICIES as POLICIES,
)
from palate.config.core import (
    Device as Device,
)
from palate.config.core import (
    Dtype as Dtype,
)
from palate.config.core import (
    Paused as Paused,
)
from palate.config.core import (
    UserError as UserError,
)
from palate.config.core import (
    as_dict as as_dict,
)
from palate.config.core import (
    from_mapping as from_mapping,
)
from palate.config.core import (
    of_run as of_run,
)
from palate.config.core import (
    read_yaml as read_yaml,
)
from palate.config.data import (
    BackupConfig as BackupConfig,
)
from palate.config.data import (
    ExportConfig as ExportConfig,
)
from palate.config.data import (
    ImportConfig as ImportConfig,
)
from palate.config.data import (
    InitConfig as InitConfig,
)
from palate.config.data import (
    RecoverConfig as RecoverConfig,
)
from palate.config.data import (
    RestoreConfig as RestoreConfig,
)
from palate.config.data import (
    SampleConfig as SampleConfig,
)
from palate.config.data import (
    ViewConfig as ViewConfig,
)
from palate.config.labeling import (
    LabelConfig as LabelConfig,
)
from palate.config.labeling import (
    SimulateConfig as SimulateConfig,
)
from palate.config.labeling import (
    StatsConfig as StatsConfig,
)
from palate.config.online import (
    GrpoConfig as GrpoConfig,
)
from palate.config.online import (
    OnlineConfig as OnlineConfig,
)
from palate.config.online import (
    PpoConfig as PpoConfig,
)
from palate.config.online import (
    RlooConfig as RlooConfig,
)
from palate.config.reward import (
    RewardBestConfig as RewardBestConfig,
)
from palate.config.reward import (
    RewardConfig as RewardConfig,
)
from palate.config.reward import (
    RewardFeaturesConfig as RewardFeaturesConfig,
)
from palate.config.reward import (
    RewardScoreConfig as RewardScoreConfig,
)
from palate.config.reward import (
    RewardServeConfig as RewardServeConfig,
)
from palate.config.training import (
    DpoConfig as DpoConfig,
)
from palate.config.training import (
    KtoConfig as KtoConfig,
)
from palate.config.training import (
    SftConfig as SftConfig,
)
from palate.config.whole import (
    DemoConfig as DemoConfig,
)
from palate.config.whole import (
    EvalConfig as EvalConfig,
)
from palate.config.whole import (
    LoopConfig as LoopConfig,
)
from palate.config.whole import (
    RunsConfig as RunsConfig,
)
