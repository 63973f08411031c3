"""HTP, Hierarchical Trace-and-Project: know for every ONNX node which PyTorch module call it came from.

:mod:`.hierarchy` gives every module of a model its one tag; :mod:`.trace` exports the model while it records the module
calls; :mod:`.project` carries calls onto the nodes of the graph; :mod:`.tags` reads them back from a file.
"""
