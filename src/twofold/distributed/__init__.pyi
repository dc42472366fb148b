from . import batch_inference as batch_inference, launch as launch
