from .perform import perform as perform
from .running import run_sweep as run_sweep
from .store import Store as Store
from .sweep import Run as Run
from .sweep import Sweep as Sweep
from .sweep import span as span
from .tables import export as export
from .tables import rows as rows
