from .app import create_app as create_app
from .server import running as running, serve as serve
