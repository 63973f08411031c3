"""What a model folder holds, read before anything is loaded, and whether it can be trusted.

Nothing here imports torch or transformers: a folder is judged by its files alone. Every way in which it falls short is
one of the errors of :mod:`modelexport.contract.errors`.

>>> checkpoint = read(Path("all-MiniLM-L6-v2"))
>>> checkpoint.model_type, checkpoint.format, checkpoint.dtype
('bert', 'safetensors', 'float32')
"""

from modelexport.checkpoint.custom_code import CustomCode
from modelexport.checkpoint.model import Checkpoint, Format, Library, TensorInfo, WeightFile
from modelexport.checkpoint.reading import read

__all__ = ["Checkpoint", "CustomCode", "Format", "Library", "TensorInfo", "WeightFile", "read"]
