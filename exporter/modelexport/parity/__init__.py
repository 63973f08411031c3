"""Whether the numbers are PyTorch's: the inputs to judge on, what PyTorch makes of them, and the comparison.

``cases`` and ``decoder_cases`` make the inputs, ``references`` runs PyTorch on them and takes the results to the
process that holds ONNX Runtime, where ``numbers`` compares single calls and ``generation`` whole texts.
"""
