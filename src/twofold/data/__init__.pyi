from . import images as images
from .files import Files as Files
from .sources import load as load, read as read
from .table import Table as Table
