from . import datasets as datasets
from .data import images as images
from .data.files import Files as Files
from .errors import TwofoldError as TwofoldError
from .estimators.autoencoder import Autoencoder as Autoencoder, load as load
from .estimators.imputer import Imputer as Imputer
from .nn.bottleneck import Plain as Plain
from .nn.bottlenecks import Ordered as Ordered, Sparse as Sparse, Variational as Variational
from .nn.corruption import (
    Binarize as Binarize,
    Gaussian as Gaussian,
    Masking as Masking,
    SaltAndPepper as SaltAndPepper,
    Swap as Swap,
    Warp as Warp,
)
from .nn.layers import Conv as Conv, Recurrent as Recurrent
from .training import callbacks as callbacks

__version__: str
