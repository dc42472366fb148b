from .column import Column as Column
from .schema import Schema as Schema
