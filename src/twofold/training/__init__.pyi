from .callbacks import MLflow as MLflow, TensorBoard as TensorBoard, together as together
from .loop import Event as Event, History as History
from .progress import Progress as Progress
