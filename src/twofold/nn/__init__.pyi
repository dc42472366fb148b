from .activations import (
    Activation as Activation,
    InPlace as InPlace,
    Straight as Straight,
    register_activation as register_activation,
)
from .bottleneck import (
    Bottleneck as Bottleneck,
    BottleneckSpec as BottleneckSpec,
    Plain as Plain,
    register_bottleneck as register_bottleneck,
)
from .bottlenecks import Ordered as Ordered, Sparse as Sparse, Variational as Variational
from .corruption import (
    Binarize as Binarize,
    Gaussian as Gaussian,
    Masking as Masking,
    SaltAndPepper as SaltAndPepper,
    Swap as Swap,
    Warp as Warp,
)
from .likelihoods import (
    Likelihood as Likelihood,
    register_likelihood as register_likelihood,
)
from .layers import Conv as Conv, Recurrent as Recurrent
from .network import Network as Network
from .objective import Objective as Objective
