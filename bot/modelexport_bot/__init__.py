"""modelexport-bot: opens one pull request with a verified ``onnx/`` folder on a Hugging Face Hub model repo.

This side talks to the Hub and holds the token; the exporter (:mod:`modelexport`) runs as a child process that has
neither. See ``docs/design.md``.
"""

__version__ = "1.0.0"
