from . import ddp as ddp
from . import zarr as zarr
