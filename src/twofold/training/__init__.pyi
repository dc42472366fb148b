from . import callbacks as callbacks
from .callbacks import (
    EarlyStopping as EarlyStopping,
    LearningRateFinder as LearningRateFinder,
    MLflow as MLflow,
    ModelCheckpoint as ModelCheckpoint,
    TensorBoard as TensorBoard,
)
from .config import TrainingConfig as TrainingConfig
from .events import Event as Event, StopTraining as StopTraining
from .process_group import (
    SingleProcess as SingleProcess,
    WorkerGroup as WorkerGroup,
    current_workers as current_workers,
    using as using,
)
from .progress import Progress as Progress
from .trainer import History as History, Trainer as Trainer
