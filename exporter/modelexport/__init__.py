"""modelexport: a local model folder goes in, a verified, Optimum-ready ``onnx/`` folder comes out.

Importing this package imports nothing heavy: the command line answers ``--help`` without torch.
"""

__version__ = "1.0.0"
