from .build import reproduce as reproduce
from .claims import Claim as Claim
from .data import Data as Data
from .pictures import FIGURES as FIGURES
from .plan import PLANS as PLANS
from .plan import Plan as Plan
