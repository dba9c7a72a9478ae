from .encoder import Code as Code
from .encoder import SkinEncoder as SkinEncoder
from .hadamard import SignedHadamard as SignedHadamard
