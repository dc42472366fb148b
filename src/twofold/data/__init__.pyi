from . import images as images
from .files import Files as Files, load as load
from .sources import read as read
from .table import Table as Table
