from .autoencoder import Autoencoder as Autoencoder, load as load
from .imputer import Imputer as Imputer, filling_autoencoder as filling_autoencoder
