from . import losses as losses
from . import phase as phase
from . import skin as skin
from . import trained as trained
from . import weave as weave
from . import weights as weights
