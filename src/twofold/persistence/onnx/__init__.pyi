from .preprocessing import Cells as Cells, Inputs as Inputs
